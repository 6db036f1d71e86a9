"""What was computed already, kept in a file, so that hours of work that were cut go on where they were."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Store:
    """Results by their keys, in a file of lines of JSON.

    What another version of the code has computed does not count.

    Args:
        path: The file. Defaults to `None`: nothing is kept.
        version: The version of the code.

    Attributes:
        spent: The seconds that took what was asked for and known.
    """

    def __init__(self, path: Path | None = None, version: str = "") -> None:
        self._path = path
        self._known: dict[str, tuple[Any, float]] = {}
        self.spent = 0.0
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        if lines[:1] == [json.dumps(version)]:
            for name, value, seconds in map(json.loads, filter(_is_whole, lines[1:])):
                self._known[name] = value, seconds
        else:
            path.write_text(json.dumps(version))

    def kept(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """What was computed for a key, which is computed where there is none.

        Args:
            key: Names and numbers.
            compute: Gives what JSON can hold.
        """
        if self._path is None:
            return compute()
        name = json.dumps(key)
        if name not in self._known:
            begin = time.perf_counter()
            value = compute()
            line = json.dumps([name, value, time.perf_counter() - begin])
            with self._path.open("a") as file:
                file.write(f"\n{line}")  # on a line of its own, whatever was cut
            self._known[name] = value, 0.0
        value, seconds = self._known[name]
        self._known[name] = value, 0.0  # once is enough
        self.spent += seconds
        return value

    def forget(self) -> None:
        """Remove the file, once all is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _is_whole(line: str) -> bool:
    """Whether a line was written to its end."""
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True
