"""A target is the old one or the new one, never half."""

import os
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


KINDS = ("file", "folder")


@pytest.mark.parametrize("old", [None, *KINDS, "empty folder"])
@pytest.mark.parametrize("new", KINDS)
def test_success(old, new, tmp_path):
    target = tmp_path / "target"
    if old == "empty folder":
        target.mkdir()
    elif old is not None:
        _write(target, old, "old")
    if (old, new) == ("file", "folder"):
        with pytest.raises(ModelFileError, match="target"), staged(target, overwrite=True) as temporary:
            _write(temporary, new, "new")
        assert _tree(tmp_path) == _outcome("file", "old")
        return
    with staged(target, overwrite=old is not None) as temporary:
        _write(temporary, new, "new")
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
    assert _tree(tmp_path) == _outcome(new, "new")


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("old", [None, *KINDS])
@pytest.mark.parametrize("new", KINDS)
def test_failure_while_writing(old, new, error, tmp_path):
    target = tmp_path / "target"
    if old is not None:
        _write(target, old, "old")
    before = _tree(tmp_path)
    seen = ModelFileError if isinstance(error, OSError) else type(error)
    with pytest.raises(seen), staged(target, overwrite=True) as temporary:
        _write(temporary, new, "half")
        raise error
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
    with pytest.raises(seen), staged(tmp_path / "target", overwrite=True) as temporary:
        _write(temporary, "folder", "new")
    assert _tree(tmp_path) == _outcome("folder", "old")


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(ModelFileError, match="No such file"), staged(tmp_path / "target", overwrite=False):
        pass
    assert not list(tmp_path.iterdir())


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "target").symlink_to("precious")
    with staged(tmp_path / "target", overwrite=True) as temporary:
        temporary.write_text("new")
    assert _tree(tmp_path) == {"precious": "precious", "target": "new"}


def test_the_suffix_stays(tmp_path):
    with staged(tmp_path / "model.keras", overwrite=False) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_text("new")


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
    with pytest.raises(ModelFileError, match=message), staged(Path(target), overwrite=overwrite):
        raise AssertionError("the body ran")
    assert _tree(tmp_path) == before


@pytest.mark.parametrize(("target", "overwrite"), [("new", False), ("file", True), ("saved", True), ("empty", True)])
def test_welcome(target, overwrite, tmp_path):
    (tmp_path / "file").write_text("file")
    (tmp_path / "empty").mkdir()
    _write(tmp_path / "saved", "folder", "saved")
    check_target(tmp_path / target, overwrite=overwrite)
