"""Pickles under every name, and what is no file at all."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harm.good import Kind
from harm.harm import CANARY, Harm


class Song:
    """What runs code as it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.open, (CANARY, os.O_CREAT | os.O_WRONLY))


def others(kind: Kind) -> Iterator[Harm]:
    """Pickles under every name, and what is no file at all."""

    def harm(name: str, make: Callable[[Path], None], part: int = 0) -> Harm:
        def do(folder: Path) -> None:
            path = kind.parts(folder)[part]
            path.unlink()
            make(path)

        return Harm("pickles, pipes and links", f"{name} for part {part}", kind, do)

    for part in kind.read_parts:
        yield harm("a pickle", lambda path: path.write_bytes(pickle.dumps(Song())), part)
        yield harm("a pipe", lambda path: os.mkfifo(path), part)
        yield harm("a device", lambda path: path.symlink_to("/dev/zero"), part)
        yield harm("a link to nothing", lambda path: path.symlink_to("nowhere"), part)
        yield harm("a link to itself", lambda path: path.symlink_to(path.name), part)
        yield harm("a folder", lambda path: path.mkdir(), part)
        yield harm("nothing", lambda path: path.touch(), part)
        yield harm("a secret", lambda path: path.symlink_to("/etc/passwd"), part)
