"""Write beside the target, then move into place: a killed run leaves the old file or the new one, never half."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasbn.errors import ModelFileError


@contextmanager
def staged(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path to write to, moved to `path` when the context ends well and deleted when it does not.

    Args:
        path: The file or folder to make.
        overwrite: Whether an existing one may be replaced.

    Raises:
        ModelFileError: if `path` exists and may not be replaced, or cannot be written.
    """
    check_target(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        _move(temporary, path)
    except OSError as error:
        raise ModelFileError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    finally:
        _delete(temporary)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises:
        ModelFileError: if it exists and may not be replaced, or its folder does not exist. A folder
            is replaced only if it holds a SavedModel, or one version for a model server.
    """
    if path.name in ("", ".."):
        raise ModelFileError(f"Cannot write {str(path)!r}: it is no name of a file or folder.")
    if not path.parent.is_dir():
        raise ModelFileError(
            f"Cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist. Make it first."
        )
    if os.path.lexists(path) and not overwrite:
        raise ModelFileError(
            f"{str(path)!r} exists already. Choose another path, or pass overwrite=True (--force on the command line)."
        )
    if path.is_dir() and not _holds_a_model(path):
        raise ModelFileError(
            f"{str(path)!r} is a folder that holds something other than a SavedModel or one version for a model "
            "server; it is not overwritten. Choose another path."
        )


def _holds_a_model(folder: Path) -> bool:
    """Whether a folder, unless it is empty, is what an export wrote."""
    names = {each.name for each in folder.iterdir()}
    served = {"config.pbtxt"} & names or (folder / "1" / "saved_model.pb").is_file()
    return not names or "saved_model.pb" in names or bool(served and names <= {"1", "config.pbtxt"})


def _move(source: Path, target: Path) -> None:
    if not target.is_dir() or target.is_symlink():
        os.replace(source, target)
        return
    # No folder can replace another in one step everywhere: the old one steps aside first.
    aside = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}-old")
    os.replace(target, aside)
    try:
        os.replace(source, target)
    except BaseException:
        os.replace(aside, target)
        raise
    _delete(aside)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
