"""A target is the old one or the new one, never half."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kerasbn import ModelFileError
from kerasbn.files.staging import check_target, staged


def _write(path, kind, text):
    """A file, or a folder as SavedModels are."""
    if kind == "folder":
        (path / "variables").mkdir(parents=True)
        (path / "variables" / text).write_text(text)
        path = path / "saved_model.pb"
    path.write_text(text)


def _tree(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_text() for path in folder.rglob("*")}


def _outcome(kind, text):
    if kind == "file":
        return {"target": text}
    return {"target": False, "target/saved_model.pb": text, "target/variables": False, f"target/variables/{text}": text}


def _stage(target, kind, *, overwrite=True, error=None):
    with staged(target, overwrite=overwrite) as temporary:
        _write(temporary, kind, "new")
        if error is not None:
            raise error


KINDS = ("file", "folder")


@pytest.mark.parametrize(
    ("old", "new"),
    [(None, "file"), (None, "folder"), ("file", "file"), ("folder", "folder"), ("folder", "file"), ("empty", "folder")],
)
def test_success(old, new, tmp_path):
    if old == "empty":
        (tmp_path / "target").mkdir()
    elif old is not None:
        _write(tmp_path / "target", old, "old")
    _stage(tmp_path / "target", new, overwrite=old is not None)
    assert _tree(tmp_path) == _outcome(new, "new")


def test_a_folder_does_not_take_the_place_of_a_file(tmp_path):
    _write(tmp_path / "target", "file", "old")
    with pytest.raises(ModelFileError, match="target"):
        _stage(tmp_path / "target", "folder")
    assert _tree(tmp_path) == _outcome("file", "old")


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("old", [None, *KINDS])
@pytest.mark.parametrize("new", KINDS)
def test_failure_while_writing(old, new, error, tmp_path):
    target = tmp_path / "target"
    if old is not None:
        _write(target, old, "old")
    before = _tree(tmp_path)
    seen = ModelFileError if isinstance(error, OSError) else type(error)
    with pytest.raises(seen):
        _stage(target, new, error=error)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PermissionError(13, "Permission denied")])
def test_failure_while_a_folder_is_replaced(error, tmp_path, monkeypatch):
    _write(tmp_path / "target", "folder", "old")
    replace, calls = os.replace, []

    def failing_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing_second)
    seen = ModelFileError if isinstance(error, OSError) else type(error)
    with pytest.raises(seen):
        _stage(tmp_path / "target", "folder")
    assert _tree(tmp_path) == _outcome("folder", "old")


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(ModelFileError, match="No such file"), staged(tmp_path / "target", overwrite=False):
        pass
    assert not list(tmp_path.iterdir())


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "target").symlink_to("precious")
    _stage(tmp_path / "target", "file")
    assert _tree(tmp_path) == {"precious": "precious", "target": "new"}


def test_the_temporary_is_hidden_beside_the_target(tmp_path):
    """In one file system with it, and of its name, by which files of one model know each other."""
    with staged(tmp_path / "model.keras", overwrite=False) as temporary:
        (hidden,) = tmp_path.iterdir()
        assert hidden.name.startswith(".model-")
        assert temporary.is_relative_to(hidden)
        assert temporary.name == "model.keras"
        temporary.write_text("new")


def _stage_files(folder, names, *, overwrite=True):
    """Write files of these names; the target is `m`, its companions are `a` and `b`."""
    with staged(folder / "m", overwrite=overwrite, companions=[folder / "a", folder / "b"]) as temporary:
        for name in names:
            temporary.with_name(name).write_text("new")


@pytest.mark.parametrize("new", ["m", "ma", "mab", "mz"])
@pytest.mark.parametrize("old", ["", "m", "a", "ma", "mab", "z"])
def test_companions_come_and_go_with_the_target(old, new, tmp_path):
    for name in old:
        (tmp_path / name).write_text("old")
    _stage_files(tmp_path, new)
    stays = {"z": "old"} if "z" in old else {}  # no companion, neither there nor among what was written
    assert _tree(tmp_path) == stays | {name: "new" for name in new if name != "z"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PermissionError(13, "Permission denied")])
@pytest.mark.parametrize(("old", "move"), [(old, move) for old in ("", "m", "ma") for move in range(len(old) + 2)])
def test_failure_while_companions_are_moved(old, move, error, tmp_path, monkeypatch):
    for name in old:
        (tmp_path / name).write_text("old")
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == move + 1:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ModelFileError if isinstance(error, OSError) else type(error)):
        _stage_files(tmp_path, "ma")
    assert _tree(tmp_path) == dict.fromkeys(old, "old")


def test_the_target_goes_first_and_comes_last(tmp_path, monkeypatch):
    """A killed run leaves no target beside the companion of another."""
    for name in "ma":
        (tmp_path / name).write_text("old")
    replace, seen = os.replace, []

    def seeing(source, target):
        replace(source, target)
        seen.append({name: text for name, text in _tree(tmp_path).items() if name in ("m", "a")})

    monkeypatch.setattr(os, "replace", seeing)
    _stage_files(tmp_path, "ma")
    assert seen == [{"a": "old"}, {}, {"a": "new"}, {"a": "new", "m": "new"}]


def test_companions_without_a_target_are_an_error(tmp_path):
    (tmp_path / "m").write_text("old")
    with pytest.raises(ModelFileError, match="No such file"):
        _stage_files(tmp_path, "a")
    assert _tree(tmp_path) == {"m": "old"}


@pytest.mark.parametrize(("kind", "overwrite", "message"), [("file", False, "exists"), ("folder", True, "is a folder")])
def test_a_companion_in_the_way(kind, overwrite, message, tmp_path):
    _write(tmp_path / "b", kind, "old")
    before = _tree(tmp_path)
    with pytest.raises(ModelFileError, match=message):
        _stage_files(tmp_path, "m", overwrite=overwrite)
    assert _tree(tmp_path) == before


# A target, whether it may be overwritten, and a part of the message.
REFUSED = {
    "no such folder": ("missing/model", True, "'missing' does not exist"),
    "below a file": ("file/model", True, "'file' does not exist"),
    "a file": ("file", False, "exists already"),
    "a folder": ("saved", False, "exists already"),
    "a link to nothing": ("dangling", False, "exists already"),
    "a folder of something else": ("folder", True, "other than a SavedModel"),
    "this folder": (".", True, "no name"),
    "the folder above": ("..", True, "no name"),
    "nothing": ("", True, "no name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("file")
    Path("folder").mkdir()
    Path("folder/precious").write_text("precious")
    Path("dangling").symlink_to("nowhere")
    _write(Path("saved"), "folder", "saved")
    before = _tree(tmp_path)
    target, overwrite, message = REFUSED[case]
    with pytest.raises(ModelFileError, match=message):
        check_target(Path(target), overwrite=overwrite)
    with pytest.raises(ModelFileError, match=message):
        _stage(Path(target), "file", overwrite=overwrite)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize(("target", "overwrite"), [("new", False), ("file", True), ("saved", True), ("empty", True)])
def test_welcome(target, overwrite, tmp_path):
    (tmp_path / "file").write_text("file")
    (tmp_path / "empty").mkdir()
    _write(tmp_path / "saved", "folder", "saved")
    check_target(tmp_path / target, overwrite=overwrite)


KILLED = """
import os, pathlib, signal, sys
from kerasbn.files.staging import staged

kind, target, companion = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
with staged(target, overwrite=True, companions=[companion]) as temporary:
    if kind == "folder":
        temporary.mkdir()
        temporary = temporary / "saved_model.pb"
    temporary.write_text("half")
    (temporary.parent / companion.name).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_that_is_killed_leaves_the_old_one(kind, tmp_path):
    target, companion = tmp_path / "target", tmp_path / "target.data"
    _write(target, kind, "old")
    companion.write_text("old")
    before = _tree(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, kind, target, companion], check=False)
    assert done.returncode == -signal.SIGKILL
    left = {name: content for name, content in _tree(tmp_path).items() if not name.startswith(".target-")}
    assert left == before
