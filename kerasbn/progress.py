"""Progress of what takes long, shown where a person looks on: in a terminal or a notebook."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")

_AROUND: ContextVar[Progress | None] = ContextVar("around", default=None)
"""The bars that `steps` shows, below which others go: a terminal shows one set of bars at a time."""


def shown(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar on stderr that goes when they are through.

    Args:
        items: What is gone through.
        description: What is being done, `"Measuring statistics"`.
        total: How many items there are. Defaults to `None`: not known.
    """
    around = _AROUND.get()
    with _bars() if around is None else contextlib.nullcontext(around) as bars:
        bar = bars.add_task(description, total=total)
        try:
            for item in items:
                yield item
                bars.advance(bar)
        finally:
            bars.remove_task(bar)


@contextlib.contextmanager
def steps(total: int, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """One bar for what takes several steps, and below it those of `shown` within them.

    Args:
        total: How many steps there are.
        quiet: Whether none of them is shown.

    Yields:
        A function to be called at the beginning of each step with what it is, `"Reading net.keras"`.
    """
    with _bars(quiet) as bars:
        bar = bars.add_task("", total=total, visible=False)
        begun = 0

        def step(what: str) -> None:
            nonlocal begun
            bars.update(bar, description=what, completed=begun, visible=True, refresh=True)  # however short it is
            begun += 1

        token = _AROUND.set(bars)
        try:
            yield step
        finally:
            _AROUND.reset(token)


def _bars(quiet: bool = False) -> Progress:
    console = Console(stderr=True)
    if console.is_jupyter:
        watched = importlib.util.find_spec("ipywidgets") is not None  # without it rich shows a warning instead of bars
    else:
        watched = console.file.isatty() and console.is_interactive  # whatever FORCE_COLOR says
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console.quiet = quiet or not watched  # older rich ends bars that it does not show with an empty line
    return Progress(*columns, console=console, transient=True, disable=console.quiet)
