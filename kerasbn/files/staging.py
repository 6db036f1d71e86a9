"""Write beside the target, then move into place: a killed run leaves the old one or the new one, never half."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kerasbn.errors import ModelFileError
from kerasbn.files.moving import is_halfway, move_into_place, resume

_LOCK = "lock"


@contextmanager
def staged(path: Path, *, overwrite: bool, companions: Sequence[Path] = ()) -> Iterator[Path]:
    """A path to write to, moved to `path` when the context ends well and deleted when it does not.

    It has the name of `path`, in a folder of its own: files beside it that have the names of `companions` are moved
    as well, all else there is deleted. What a run that was killed has left on the way to `path` is put right first.

    Args:
        path: The file or folder to make.
        overwrite: Whether existing ones may be replaced.
        companions: Files beside `path` that may belong to it. Old ones go where there are no new ones.

    Raises:
        ModelFileError: if `path` or a companion exists and may not be replaced, or cannot be written, or another run
            is writing it.
    """
    check_target(path, overwrite=overwrite, companions=companions)
    with _said_of(path), _locked(path) as staging:
        _check_existing(path, overwrite=overwrite, companions=companions)
        for each in ("new", "old"):
            (staging / each).mkdir()
        yield staging / "new" / path.name
        move_into_place(staging, path.name, [each.name for each in companions])


def scratch_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for what is needed on the way to a staged path only.

    What is open there to the end, which Windows does not delete, goes with the staging folder.
    """
    return tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True)


def check_target(path: Path, *, overwrite: bool, companions: Sequence[Path] = ()) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises:
        ModelFileError: if it or a companion exists and may not be replaced, or its folder does not exist, or another
            run is writing it. A folder is replaced only if it holds a SavedModel, or one version for a model server.
    """
    if path.name in ("", "..") or "\0" in str(path):
        raise ModelFileError(f"Cannot write {str(path)!r}: it is no name of a file or folder.")
    if not path.parent.is_dir():
        raise ModelFileError(
            f"Cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist. Make it first."
        )
    with _said_of(path):
        if os.path.lexists(_staging_of(path)):
            with _locked(path):
                pass  # puts right what a run that was killed has left
        _check_existing(path, overwrite=overwrite, companions=companions)


def _check_existing(path: Path, *, overwrite: bool, companions: Sequence[Path]) -> None:
    with suppress(FileNotFoundError):
        path.lstat()  # an error where there can be nothing of that name
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


def _staging_of(path: Path) -> Path:
    """The hidden folder beside a target that is its own, whoever writes it; its name is never too long."""
    name = os.fsencode(os.path.normcase(path.name))
    shown = os.fsencode(path.stem)[:100].decode(errors="ignore")
    return path.with_name(f".{shown}-{hashlib.sha256(name).hexdigest()[:12]}")


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """The staging folder of a target, which is nobody else's meanwhile, with nothing in it but the lock.

    It is there as long as the lock is held, or as something is halfway.
    """
    from filelock import FileLock, Timeout  # late, so that `--help` answers at once

    staging = _staging_of(path)
    lock = FileLock(staging / _LOCK, timeout=0)
    try:
        try:
            _make_own(staging)
            lock.acquire()
        except Timeout as error:
            raise ModelFileError(
                f"{str(path)!r} is being written by another run. Wait until it is through, or choose another path."
            ) from error
        resume(staging)
        _clear(staging)
        yield staging
    finally:
        if lock.is_locked:
            if not is_halfway(staging):
                _clear(staging)
                with suppress(OSError):  # Windows deletes no file that is open
                    (staging / _LOCK).unlink()
            lock.release()
        with suppress(OSError):
            staging.rmdir()


def _make_own(staging: Path) -> None:
    """Make a staging folder unless it is there; one that somebody else has made may hold anything."""
    staging.mkdir(mode=0o700, exist_ok=True)
    found = staging.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
        raise ModelFileError(
            f"{str(staging)!r}, which kerasbn would write in, belongs to somebody else. Remove it, or choose another "
            "path."
        )


def _clear(staging: Path) -> None:
    """Remove all but the lock, as far as that goes."""
    with suppress(OSError):
        for each in staging.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            elif each.name != _LOCK:
                each.unlink()


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """What the system says is wrong, said of the target."""
    try:
        yield
    except OSError as error:
        raise ModelFileError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
