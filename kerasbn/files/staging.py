"""Write beside the target, then move into place: a killed run leaves the old file or the new one, never half."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kerasbn.errors import ModelFileError


@contextmanager
def staged(path: Path, *, overwrite: bool, companions: Sequence[Path] = ()) -> Iterator[Path]:
    """A path to write to, moved to `path` when the context ends well and deleted when it does not.

    It has the name of `path`, in a folder of its own: files beside it that have the names of `companions` are moved
    as well, all else there is deleted.

    Args:
        path: The file or folder to make.
        overwrite: Whether existing ones may be replaced.
        companions: Files beside `path` that may belong to it. Old ones go where there are no new ones.

    Raises:
        ModelFileError: if `path` or a companion exists and may not be replaced, or cannot be written.
    """
    check_target(path, overwrite=overwrite, companions=companions)
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{path.stem}-", dir=path.parent, ignore_cleanup_errors=True
        ) as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            old.mkdir()
            yield new / path.name
            _move(new, old, path, companions)
    except OSError as error:
        raise ModelFileError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def check_target(path: Path, *, overwrite: bool, companions: Sequence[Path] = ()) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises:
        ModelFileError: if it or a companion exists and may not be replaced, or its folder does not exist. A folder
            is replaced only if it holds a SavedModel, or one version for a model server.
    """
    if path.name in ("", ".."):
        raise ModelFileError(f"Cannot write {str(path)!r}: it is no name of a file or folder.")
    if not path.parent.is_dir():
        raise ModelFileError(
            f"Cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist. Make it first."
        )
    for each in (path, *companions):
        if os.path.lexists(each) and not overwrite:
            raise ModelFileError(
                f"{str(each)!r} exists already. Choose another path, or pass overwrite=True (--force on the command "
                "line)."
            )
        if each.is_dir() and not (each == path and _holds_a_model(each)):
            raise ModelFileError(
                f"{str(each)!r} is a folder that holds something other than a SavedModel or one version for a model "
                "server; it is not overwritten. Choose another path."
            )


def _holds_a_model(folder: Path) -> bool:
    """Whether a folder, unless it is empty, is what an export wrote."""
    names = {each.name for each in folder.iterdir()}
    served = {"config.pbtxt"} & names or (folder / "1" / "saved_model.pb").is_file()
    return not names or "saved_model.pb" in names or bool(served and names <= {"1", "config.pbtxt"})


def _move(new: Path, old: Path, path: Path, companions: Sequence[Path]) -> None:
    """Move what was written into place: in one step where that can be, else the old ones step aside first.

    No folder can replace another in one step everywhere, nor several files several. Where `path` is, it is whole: it
    goes first and comes last.
    """
    written = [each for each in companions if os.path.lexists(new / each.name)]
    replaced = [each for each in (path, *companions) if os.path.lexists(each)]
    if not written and replaced in ([], [path]) and (path.is_symlink() or not path.is_dir()):
        os.replace(new / path.name, path)
        return
    moves = [(each, old / each.name) for each in replaced] + [(new / each.name, each) for each in (*written, path)]
    begun = []
    try:
        for move in moves:
            begun.append(move)
            os.replace(*move)
    except BaseException:
        for source, target in reversed(begun):
            if os.path.lexists(target) and not os.path.lexists(source):
                os.replace(target, source)
        raise
