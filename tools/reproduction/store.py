"""What was computed already, kept in a file, so that hours of work that were cut go on where they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Store:
    """Results by their keys, in a file of lines of JSON.

    What another version of the code has computed does not count.

    Args:
        path: The file. Defaults to `None`: nothing is kept.
        version: The version of the code.
    """

    def __init__(self, path: Path | None = None, version: str = "") -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        if lines[:1] == [json.dumps(version)]:
            self._known = dict(map(json.loads, filter(_is_whole, lines[1:])))
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
            self._known[name] = compute()
            with self._path.open("a") as file:
                file.write("\n" + json.dumps([name, self._known[name]]))  # on a line of its own, whatever was cut
        return self._known[name]

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
