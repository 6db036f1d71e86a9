"""Move what was written into place, in one step or in steps that a later run finishes; and have the disk hold it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from kerasbn.errors import ModelFileError

Step = tuple[Literal["aside", "place"], str]
"""What is done to a name beside the staging folder: what has it goes into `old`, or it comes out of `new`."""

_JOURNAL = "steps.json"
_EXCHANGE, _WORKING_DIRECTORY = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux


def move_into_place(staging: Path, name: str, companions: Sequence[str]) -> None:
    """Move `new/name`, and the companions that are there too, out of the staging folder to what is beside it.

    In one step where that can be: one file takes the place of another everywhere, one folder that of another on Linux.
    Else the steps are written down first, so that `resume` finishes them if they are cut short. What had the name is
    whole where it is: it goes first, and the new one comes last.

    Raises:
        OSError: if it cannot be done. All is then as it was.
    """
    os.lstat(staging / "new" / name)  # an error where nothing was written
    _settle(staging / "new")
    steps = _steps(staging, name, companions)
    if len(steps) == 1:
        if _replace(staging / "new" / name, target := staging.parent / name):
            _sync(target.parent)
            return
        steps = [("aside", name), *steps]
    try:
        _write_journal(staging, steps)
        for step in steps:
            _take(staging, step)
    except BaseException:
        if not all(_is_taken(staging, step) for step in steps):
            for step in reversed(steps):
                _take_back(staging, step)
            _close_journal(staging)
        raise
    _close_journal(staging)


def resume(staging: Path) -> None:
    """Finish the steps that a killed run has left halfway, if it has.

    Raises:
        OSError: if that cannot be done.
        ModelFileError: if what was written down is none of kerasbn's.
    """
    try:
        content = json.loads((staging / _JOURNAL).read_text(encoding="utf-8"))
        steps: list[Step] = [(verb, name) for verb, name in content]
        if not all(verb in ("aside", "place") and Path(name).name == name not in ("", "..") for verb, name in steps):
            raise ValueError
    except FileNotFoundError:
        return
    except (TypeError, ValueError) as error:
        raise ModelFileError(
            f"{str(staging)!r} holds what a run that was killed has left, and cannot be read. Look into it for files "
            "that you miss, and remove it."
        ) from error
    for step in steps:
        if not _is_taken(staging, step):
            _take(staging, step)
    _close_journal(staging)


def is_halfway(staging: Path) -> bool:
    """Whether there are steps left, so that what is in the folder is needed still."""
    return (staging / _JOURNAL).exists()


def _steps(staging: Path, name: str, companions: Sequence[str]) -> list[Step]:
    written = [each for each in companions if os.path.lexists(staging / "new" / each)]
    replaced = [each for each in companions if os.path.lexists(staging.parent / each)]
    if replaced and os.path.lexists(staging.parent / name):
        replaced = [name, *replaced]
    return [*(("aside", each) for each in replaced), *(("place", each) for each in (*written, name))]


def _ends(staging: Path, step: Step) -> tuple[Path, Path]:
    verb, name = step
    here = staging.parent / name
    return (here, staging / "old" / name) if verb == "aside" else (staging / "new" / name, here)


def _is_taken(staging: Path, step: Step) -> bool:
    """Whether a step was taken; what lies in the staging folder tells."""
    source, target = _ends(staging, step)
    return os.path.lexists(target) if step[0] == "aside" else not os.path.lexists(source)


def _take(staging: Path, step: Step) -> None:
    os.replace(*_ends(staging, step))


def _take_back(staging: Path, step: Step) -> None:
    if _is_taken(staging, step):
        source, target = _ends(staging, step)
        os.replace(target, source)


def _write_journal(staging: Path, steps: Sequence[Step]) -> None:
    draft = staging / f"{_JOURNAL}.new"
    draft.write_text(json.dumps(steps), encoding="utf-8")
    _sync(draft)
    draft.rename(staging / _JOURNAL)
    _sync(staging)


def _close_journal(staging: Path) -> None:
    _sync(staging.parent)
    (staging / _JOURNAL).unlink(missing_ok=True)


def _replace(source: Path, target: Path) -> bool:
    """Whether one could take the place of the other in one step; the old folder is at `source` then."""
    if not target.is_dir():
        os.replace(source, target)
        return True
    return _exchange(source, target)


def _exchange(one: Path, other: Path) -> bool:
    """Whether two paths could change places, which Linux has for most of its file systems."""
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = (os.fsencode(one), os.fsencode(other))
    if exchange(_WORKING_DIRECTORY, names[0], _WORKING_DIRECTORY, names[1], _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(number, os.strerror(number))


def _settle(path: Path) -> None:
    """Have the disk hold all that is in a folder before its name says that it is there."""
    for each in (*path.rglob("*"), path):
        _sync(each)


def _sync(path: Path) -> None:
    on_windows = sys.platform == "win32"
    is_folder = path.is_dir()
    if is_folder and on_windows:
        return  # which has no such thing
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        _flush(descriptor)
    except OSError:
        if not is_folder:  # not every file system has it for folders
            raise
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    if sys.platform == "darwin":  # where `fsync` leaves it in the cache of the disk
        import fcntl

        with suppress(OSError):  # not every file system has it
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)
