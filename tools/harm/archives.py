"""What archives can hold, and say of themselves."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from harm.good import Kind, repacked
from harm.harm import Harm
from harm.others import Song


def archives(kind: Kind) -> Iterator[Harm]:
    if kind.path != "model.keras":
        return

    def harm(name: str, further: Callable[[zipfile.ZipFile], None], may_change: bool = False) -> Harm:
        return Harm("archives", name, kind, lambda folder: repacked(folder / kind.path, {}, further), may_change)

    def entry(name: str, content: bytes = b"x", **attributes: int) -> Callable[[zipfile.ZipFile], None]:
        def write(archive: zipfile.ZipFile) -> None:
            info = zipfile.ZipInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)

        return write

    for name in ("../evil", "/etc/evil", "C:/evil", "..\\evil", "assets/../../evil", "//evil"):
        yield harm(f"an entry {name!r}", entry(name))
    yield harm("a link", entry("assets/link", b"/etc/passwd", external_attr=0o120777 << 16, create_system=3), True)
    yield harm("a bomb", entry("assets/bomb", bytes(2**28)))

    def bombs(archive: zipfile.ZipFile) -> None:
        for number in range(40):
            archive.writestr(f"assets/{number}", bytes(2**25), zipfile.ZIP_DEFLATED)

    def twice(archive: zipfile.ZipFile) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr("config.json", "{}")

    def many(archive: zipfile.ZipFile) -> None:
        for number in range(20_000):
            archive.writestr(f"assets/{number}", b"")

    yield harm("many bombs", bombs)
    yield harm("a member twice", twice)
    yield harm("many members", many, True)

    def large_config(folder: Path) -> None:
        repacked(folder / kind.path, {"config.json": b"[" + b"[]," * 10**7 + b"[]]"}, None)

    def declared(field: int, value: int) -> Callable[[Path], None]:
        """Another number in the directory of the archive; 24 is where the size is, 8 the flags, 10 the method."""

        def do(folder: Path) -> None:
            content = bytearray((folder / kind.path).read_bytes())
            at = content.index(b"PK\x01\x02")
            size = 4 if field == 24 else 2
            content[at + field : at + field + size] = value.to_bytes(size, "little")
            (folder / kind.path).write_bytes(content)

        return do

    def as_npz(folder: Path) -> None:
        content = io.BytesIO()
        np.savez(content, a=np.array([Song()], object))
        repacked(folder / kind.path, {"model.weights.h5": None, "model.weights.npz": content.getvalue()}, None)

    yield Harm("archives", "a large config", kind, large_config)
    yield Harm("archives", "another size", kind, declared(24, 5))
    yield Harm("archives", "a great size", kind, declared(24, 2**32 - 2))
    yield Harm("archives", "encrypted", kind, declared(8, 1))
    yield Harm("archives", "an unknown method", kind, declared(10, 77))
    yield Harm("archives", "a pickle for weights", kind, as_npz)
