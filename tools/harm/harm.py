"""Something that is done to a good file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from harm.good import Kind

CANARY = "canary_has_sung"
"""A file that comes to be where code of a file's is run."""


@dataclasses.dataclass(frozen=True)
class Harm:
    """Something that is done to a kind of file.

    Attributes:
        group: The row of the table.
        name: What it is.
        kind: The kind of file.
        do: What does it, in a folder with a good file; it may give another path to be loaded.
        may_change: Whether a file may be read after it that holds another model than before.
    """

    group: str
    name: str
    kind: Kind
    do: Callable[[Path], str | None]
    may_change: bool = False
