"""Progress of what takes long, shown where a person looks on: in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def shown(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar on stderr that goes when they are through.

    Args:
        items: What is gone through.
        description: What is being done, `"Measuring statistics"`.
        total: How many items there are. Defaults to `None`: not known.
    """
    console = Console(stderr=True)
    watched = console.is_terminal or console.is_jupyter
    yield from track(items, description, total, console=console, transient=True, disable=not watched)
