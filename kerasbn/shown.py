"""What verbs return, shown: on a page, in a notebook, in a terminal, as a picture."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions
from rich.text import Text

from kerasbn.errors import OptionError
from kerasbn.pages.content import Page
from kerasbn.pages.page import fragment, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 120


class OnAPage(abc.ABC):
    """Something that there is a page of."""

    @property
    @abc.abstractmethod
    def _page(self) -> Page:
        """What is on it."""

    def to_html(self) -> str:
        """All of it as a page of its own.

        It needs no network and holds no scripts: `pathlib.Path("page.html").write_text(result.to_html(), "utf-8")`.
        """
        return whole(self._page)

    def _repr_html_(self) -> str:
        """The same in a notebook."""
        return fragment(self._page)


class InATerminal(OnAPage):
    """Something that there is a page of, and a text as well."""

    @abc.abstractmethod
    def _text(self, width: int) -> Text:
        """The text, at most so many characters wide."""

    def __str__(self) -> str:
        return self._text(_WIDTH).plain

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The text at the width of a terminal, in colours: what `rich.print(plan)` and the command show."""
        yield self._text(options.max_width)


def figure() -> Figure:
    """A figure to plot in.

    Raises:
        OptionError: if matplotlib, the extra `kerasbn[plot]`, is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError("Plots need matplotlib. Install it with: pip install 'kerasbn[plot]'") from error
    return Figure(figsize=(6, 4), layout="constrained")
