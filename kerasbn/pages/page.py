"""Pages as HTML: whole ones, and fragments for the cell of a notebook."""

from __future__ import annotations

import functools
import hashlib

import jinja2

from kerasbn.pages.chart import HEIGHT, WIDTH, chart_of
from kerasbn.pages.content import WORDS, Page
from kerasbn.pages.drawing import drawing_of, is_small
from kerasbn.pages.tables import figures_of, table_of

GLYPHS = {"insert": "+", "remove": "\u2212", "replace": "\u2194", "fold": "»", "merge": "\u2261", "skip": "\u25cb"}
"""A sign for each thing that becomes of a node, beside its colour."""


def whole(page: Page) -> str:
    """A page as a document of its own."""
    return _rendered("page.html", page, level=1)


def fragment(page: Page) -> str:
    """A page as an element for the cell of a notebook, whose styles concern nothing else there."""
    return _rendered("fragment.html", page, level=3)


def _rendered(template: str, page: Page, level: int) -> str:
    prefix = f"kbn-{hashlib.sha256(repr(page).encode()).hexdigest()[:8]}"  # so that ids in a notebook differ
    html = _environment().get_template(template).render(page=page, level=level, prefix=prefix)
    return html.encode(errors="backslashreplace").decode()  # paths may hold bytes that are no text


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kerasbn.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(size=_size)
    environment.globals.update(
        chart_of=chart_of,
        drawing_of=drawing_of,
        figures_of=figures_of,
        glyphs=GLYPHS,
        height=HEIGHT,
        is_small=is_small,
        table_of=table_of,
        width=WIDTH,
        words=WORDS,
    )
    return environment


def _size(count: float) -> str:
    """A number of bytes to read."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} GB"
