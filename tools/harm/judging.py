"""What becomes of a bad file, and whether that is right."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from harm.good import Kind
from harm.harm import CANARY, Harm
from kerasbn import ModelFileError, OptionError
from kerasbn.cli.main import _status
from kerasbn.loading.load import read

REFUSED, SAME, CHANGED = "refused", "read right", "read as it says"
MOST_BYTES, MOST_SECONDS, LONGEST = 400 * 2**20, 20.0, 1200


class Judge:
    """Tries bad files, in a folder of their own each.

    Args:
        good: The folders with good files, by their kinds.
    """

    def __init__(self, good: dict[str, Path], kinds: tuple[Kind, ...]) -> None:
        self._good = good
        self._expected = {kind.name: _computed(_loaded(kind, good[kind.name] / kind.path)) for kind in kinds}

    def outcome(self, harm: Harm) -> tuple[str, str]:
        """What becomes of it, with the message; a fault begins with `FAULT`."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "there"
            shutil.copytree(self._good[harm.kind.name], folder)
            try:
                path = folder / (harm.do(folder) or harm.kind.path)
            except Exception:
                return "FAULT: the harm cannot be done", traceback.format_exc(limit=-2)
            with _inside(folder, Path(name) / "temporary"):
                before = _listing(Path(name))
                found = self._tried(harm, path)
                if (folder / CANARY).exists() or Path(CANARY).exists():
                    return "FAULT: code was run", found[1]
                if _listing(Path(name)) != before:
                    return "FAULT: files were left", found[1]
        return found

    def _tried(self, harm: Harm, path: Path) -> tuple[str, str]:
        reset_peak()
        base, started = memory("VmRSS"), time.perf_counter()
        weights = path.parent / harm.kind.weights if harm.kind.weights else None
        model, message, error = None, "", ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = read(path, weights=weights).model
        except (ModelFileError, OptionError) as refusal:
            message = str(refusal)
            if len(message.splitlines()) != 1 or len(message) > LONGEST or not message.isprintable():
                error = "the message is no line to read"
        except BaseException as escaped:
            message, error = traceback.format_exc(limit=-3), f"{type(escaped).__name__} got out"
        spent, taken = time.perf_counter() - started, memory("VmHWM") - base
        if spent > MOST_SECONDS:
            error = error or f"{spent:.0f} s"
        if taken > MOST_BYTES:
            error = error or f"{taken / 2**20:.0f} MB"
        status, printed = _command(path, weights)
        lines = printed.splitlines()
        if model is None and not error and (status != 2 or len(lines) != 1 or "Traceback" in printed):
            error, message = f"the command ends with {status}", printed
        if model is not None and not error and (status not in (0, 2) or len(lines) > 1 or "Traceback" in printed):
            error, message = f"the command ends with {status}", printed
        if error:
            return f"FAULT: {error}", message
        if model is None:
            return REFUSED, message
        outputs = _computed(model)
        if outputs is not None and all(map(_is_close, outputs, self._expected[harm.kind.name])):
            return SAME, ""
        return (CHANGED, "") if harm.may_change else ("FAULT: another model was read", "")


def _is_close(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape and np.allclose(one, other, atol=1e-5, rtol=1e-5))


def _loaded(kind: Kind, path: Path) -> keras.Model:
    return read(path, weights=path.parent / kind.weights if kind.weights else None).model


def _computed(model: keras.Model) -> list[Any] | None:
    """What a model computes on numbers that are always the same; `None` where it cannot."""
    random = np.random.default_rng(0)
    try:
        shapes = [tuple(each.shape[1:]) for each in model.inputs]
        if sum(int(np.prod(shape)) for shape in shapes) > 10**6:
            return None
        inputs = [random.uniform(size=(2, *shape)).astype("float32") for shape in shapes]
        outputs = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
        return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(outputs)]
    except Exception:
        return None


def _command(path: Path, weights: Path | None) -> tuple[int, str]:
    """The exit status of the command, and what it writes to stderr."""
    arguments = ["kerasbn-rewrite", str(path), "--dry-run"] + ([] if weights is None else ["--weights", str(weights)])
    before, sys.argv = sys.argv, arguments
    try:
        with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.redirect_stdout(io.StringIO()):
            try:
                status = _status()
            except BaseException:
                status = -1
                traceback.print_exc()
        return status, stderr.getvalue()
    finally:
        sys.argv = before


@contextlib.contextmanager
def _inside(folder: Path, temporary: Path) -> Any:
    """Work in a folder, with a folder of its own for what is temporary."""
    temporary.mkdir()
    before, here = tempfile.tempdir, os.getcwd()
    tempfile.tempdir = str(temporary)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        tempfile.tempdir = before


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(each), each.lstat().st_size) for each in folder.rglob("*"))


def reset_peak() -> None:
    """Have the system count the greatest use of memory from here."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory(key: str) -> int:
    """Bytes in use, or the most that were."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0
