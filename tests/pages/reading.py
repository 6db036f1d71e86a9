"""A page as a reader without eyes or network takes it in."""

import re
from html.parser import HTMLParser

_VOID = {"br", "meta"}


class Reading(HTMLParser):
    """A page read: its elements with their attributes, its texts; what is open is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))

    def all(self, tag, **attributes):
        """The attributes of all elements of a kind that have these."""
        return [found for kind, found in self.elements if kind == tag and found.items() >= attributes.items()]

    def text(self, inside=""):
        """All text, or that inside elements of a kind."""
        return " ".join("".join(data for open_, data in self.texts if not inside or inside in open_).split())

    @property
    def style(self):
        return self.text("style")

    @property
    def tooltips(self):
        """What each drawn call tells whoever points at it."""
        return [data for open_, data in self.texts if open_[-1:] == ("title",) and "svg" in open_]


def colours(style):
    """The colours by name, of each scheme: light, then dark."""
    light, dark = re.search(r"\.kbn \{ (--[^}]*)\}", style), re.search(r"scheme: dark\) \{ \.kbn \{ (--[^}]*)\}", style)
    return [dict(re.findall(r"--([\w-]+): (#\w{6});", found[1])) for found in (light, dark)]


def contrast(one, other):
    """The contrast of two colours, as WCAG 2 has it."""

    def luminance(colour):
        channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
        return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
