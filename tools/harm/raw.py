"""What is done to the bytes of files, whatever they are: cut short, bits flipped, overwritten, called otherwise."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harm.good import Kind
from harm.harm import Harm


def _of_bytes(kind: Kind, group: str, name: str, change: Callable[[bytearray], Any], part: int) -> Harm:
    def do(folder: Path) -> None:
        path = kind.parts(folder)[part]
        content = bytearray(path.read_bytes())
        changed = change(content)
        path.write_bytes(content if changed is None else changed)

    return Harm(group, f"{name} of part {part}", kind, do, may_change=not kind.checked)


def truncated(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for part in kind.read_parts:
        for number in range(14):
            where = chance.random() if number else 0.0
            cut = lambda content, where=where: content[: int(where * len(content))]  # noqa: E731
            yield dataclasses.replace(_of_bytes(kind, "cut short", f"at {where:.3f}", cut, part), may_change=False)


def flipped(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for part in kind.read_parts:
        for number in range(16):
            seed, bits = chance.random(), 1 if number < 10 else 100

            def flip(content: bytearray, seed: float = seed, bits: int = bits) -> None:
                where = random.Random(seed)
                for _ in range(bits):
                    content[where.randrange(len(content))] ^= 1 << where.randrange(8)

            yield _of_bytes(kind, "bits flipped", f"{bits} bits by {seed:.3f}", flip, part)


def garbled(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    def replaced(content: bytearray, where: float, new: bytes) -> None:
        at = int(where * len(content))
        content[at : at + len(new)] = new

    for part in kind.read_parts:
        for name, new in (("zeros", bytes(64)), ("ones", b"\xff" * 64), ("zeros, many", bytes(2000))):
            for _ in range(2):
                where = chance.random()
                change = lambda content, where=where, new=new: replaced(content, where, new)  # noqa: E731
                yield _of_bytes(kind, "overwritten", f"{name} at {where:.3f}", change, part)
        yield _of_bytes(kind, "overwritten", "garbage behind", lambda content: content + b"\x01garbage" * 50, part)
        yield _of_bytes(kind, "overwritten", "garbage ahead", lambda content: b"garbage" + content, part)
        yield _of_bytes(kind, "overwritten", "twice", lambda content: content + content, part)


def suffixes(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    others = (".keras", ".h5", ".hdf5", ".json", ".weights.h5", ".pb", ".tflite", ".onnx", ".pkl", ".pt", "", ".KERAS")

    for suffix in others:

        def do(folder: Path, suffix: str = suffix) -> str:
            (folder / kind.path).rename(folder / f"other{suffix}")
            return f"other{suffix}"

        yield Harm("another suffix", suffix or "none", kind, do)
