"""A target is the old one or the new one, never half."""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from kerasbn import ModelFileError
from kerasbn.files import moving
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


@pytest.fixture(params=[True, False], ids=["in one step", "in two"])
def exchange(request, monkeypatch):
    """Whether the system lets two folders change places."""
    if not request.param:
        monkeypatch.setattr(moving, "_exchange", lambda one, other: False)
    return request.param


@pytest.mark.usefixtures("exchange")
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
@pytest.mark.parametrize("call", ["exchange", "first", "second"])
def test_failure_while_a_folder_is_replaced(call, error, tmp_path, monkeypatch):
    _write(tmp_path / "target", "folder", "old")
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == (1 if call == "first" else 2):
            raise error
        replace(source, target)

    def exchange(source, target):
        if call == "exchange":
            raise error
        return False

    monkeypatch.setattr(os, "replace", failing)
    monkeypatch.setattr(moving, "_exchange", exchange)
    seen = ModelFileError if isinstance(error, OSError) else type(error)
    with pytest.raises(seen):
        _stage(tmp_path / "target", "folder")
    assert _tree(tmp_path) == _outcome("folder", "old")


@pytest.mark.parametrize(
    ("platform", "opened", "flushed"),
    [
        ("linux", [os.O_RDONLY] * 3, ["fsync"] * 3),
        ("darwin", [os.O_RDONLY] * 3, ["F_FULLFSYNC"] * 3),
        ("win32", [os.O_RDWR], ["fsync"]),
    ],
)
def test_the_disk_holds_it_on_each_system(platform, opened, flushed, tmp_path, monkeypatch):
    """A file and two folders; Windows syncs no folders, and files only where they may be written to."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("new")
    flags, calls, really = [], [], os.open
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "open", lambda path, flag: flags.append(flag) or really(path, flag))
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, command: calls.append("F_FULLFSYNC"))
    moving._settle(tmp_path)
    assert (flags, calls) == (opened, flushed)


def _windows(name, **options):
    raise TypeError("a path is needed")


@pytest.mark.parametrize("library", [_windows, lambda name, **options: object()], ids=["Windows", "macOS"])
def test_folders_change_places_on_linux_alone(library, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert not moving._exchange(Path("one"), Path("other"))


@pytest.mark.parametrize(("number", "is_raised"), [(errno.ENOSYS, False), (errno.EINVAL, False), (errno.EPERM, True)])
def test_folders_change_places_on_most_file_systems(number, is_raised, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **options: types.SimpleNamespace(renameat2=lambda *given: -1))
    monkeypatch.setattr(ctypes, "get_errno", lambda: number)
    with pytest.raises(OSError, match="permitted") if is_raised else contextlib.nullcontext():
        assert not moving._exchange(Path("one"), Path("other"))


@pytest.mark.parametrize(("kind", "is_raised"), [("file", True), ("folder", False)])
def test_a_disk_that_does_not_sync(kind, is_raised, tmp_path, monkeypatch):
    """Not every file system syncs folders; a file that is not on the disk is an error."""
    _write(tmp_path / kind, kind, "new")

    def refused(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError, match="Invalid") if is_raised else contextlib.nullcontext():
        moving._sync(tmp_path / kind)


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(ModelFileError, match="No such file"), staged(tmp_path / "target", overwrite=False):
        pass
    assert not list(tmp_path.iterdir())


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "target").symlink_to("precious")
    _stage(tmp_path / "target", "file")
    assert _tree(tmp_path) == {"precious": "precious", "target": "new"}


@pytest.mark.usefixtures("exchange")
def test_a_link_to_a_folder_is_replaced_not_followed(tmp_path):
    _write(tmp_path / "precious", "folder", "precious")
    (tmp_path / "target").symlink_to("precious")
    before = _tree(tmp_path / "precious")
    _stage(tmp_path / "target", "folder")
    assert not (tmp_path / "target").is_symlink()
    assert _tree(tmp_path / "precious") == before
    assert (tmp_path / "target" / "saved_model.pb").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


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
@pytest.mark.parametrize(
    ("old", "move"), [(old, move) for old, moves in (("", 2), ("m", 2), ("ma", 4)) for move in range(moves)]
)
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


def test_another_run_on_the_same_target(tmp_path):
    """Whether it is another process or thread, and whatever way leads to the target."""
    target, seen = tmp_path / "target", []

    def second():
        for each in (target, tmp_path / "there" / ".." / "target"):
            for attempt in (
                lambda path=each: check_target(path, overwrite=True),
                lambda path=each: _stage(path, "file"),
            ):
                with pytest.raises(ModelFileError, match="is being written by another run") as caught:
                    attempt()
                seen.append(str(caught.value))

    (tmp_path / "there").mkdir()
    with staged(target, overwrite=True) as temporary:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        code = "import sys; from tests.files.test_staging import Path, _stage; _stage(Path(sys.argv[1]), 'file')"
        done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True)
        _stage(tmp_path / "neighbour", "file")
        temporary.write_text("first")
    assert len(seen) == 4
    assert "is being written by another run" in done.stderr
    assert _tree(tmp_path) == {"there": False, "neighbour": "new", "target": "first"}
    _stage(target, "file")


def test_the_other_run_was_quicker(tmp_path):
    """What came into being since the target was looked at is not lost."""
    with pytest.raises(ModelFileError, match="exists already"):
        _stage_behind(tmp_path / "target")
    assert _tree(tmp_path) == {"target": "theirs"}


def _stage_behind(target):
    with pytest.MonkeyPatch.context() as patch:
        mkdir = Path.mkdir

        def late(path, *args, **kwargs):
            target.write_text("theirs")
            return mkdir(path, *args, **kwargs)

        patch.setattr(Path, "mkdir", late)
        with staged(target, overwrite=False):
            pass


@pytest.mark.parametrize("name", ["m" * 250 + ".onn", "ö" * 125, "m" * 255, ".hidden", "a\nb", "a b'c", "\udcff.keras"])
def test_names_of_every_kind(name, tmp_path):
    """A name has 255 bytes at most, and what is put before or behind it must not make it longer."""
    for _ in range(2):
        _stage(tmp_path / name, "file")
        assert _tree(tmp_path) == {name: "new"}


@pytest.mark.parametrize(("name", "message"), [("m" * 256, "name too long"), ("a\0b", "no name")])
def test_names_that_there_are_not(name, message, tmp_path):
    for attempt in (lambda path: check_target(path, overwrite=True), lambda path: _stage(path, "file")):
        with pytest.raises(ModelFileError, match=message):
            attempt(tmp_path / name)
    assert not list(tmp_path.iterdir())


def _hidden(target):
    with staged(target, overwrite=False) as temporary:
        temporary.write_text("")
        hidden = temporary.parent.parent
    target.unlink()
    return hidden


@pytest.mark.parametrize("kind", ["link", "file", "another owner"])
def test_what_others_have_put_in_the_place_of_the_temporary(kind, tmp_path, monkeypatch):
    """Whoever may write beside the target may not have kerasbn write elsewhere."""
    hidden = _hidden(tmp_path / "target")
    if kind == "link":
        (tmp_path / "theirs").mkdir()
        hidden.symlink_to("theirs")
    elif kind == "file":
        hidden.write_text("")
    else:
        hidden.mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: hidden.stat().st_uid + 1)
    before = _tree(tmp_path)
    with pytest.raises(ModelFileError, match=r"Cannot write|belongs to somebody else"):
        _stage(tmp_path / "target", "file")
    assert _tree(tmp_path).keys() == before.keys() - ({hidden.name} if kind == "another owner" else set())


@pytest.mark.parametrize("steps", ["nonsense", [["place", "../m"]], [["remove", "m"]], [["place", ".."]], {"a": 1}, 3])
def test_steps_that_nobody_has_written(steps, tmp_path):
    (tmp_path / "target").write_text("old")
    hidden = _hidden(tmp_path / "other")
    hidden.mkdir()
    (hidden / "steps.json").write_text(steps if isinstance(steps, str) else json.dumps(steps))
    with pytest.raises(ModelFileError, match="was killed"):
        _stage(tmp_path / "other", "file")
    assert (tmp_path / "target").read_text() == "old"
    assert hidden.is_dir()


KILLED = """
import json, os, pathlib, signal, sys, tempfile
from kerasbn.files import moving
from kerasbn.files.staging import check_target, staged
from tests.files.test_staging import _tree, _write

kind, old, new, in_one_step = json.loads(sys.argv[1])
outcomes = []


def killed_at(count):
    # Before the call of this number of those that change something on the disk.
    def counted(call):
        def counting(*args, **kwargs):
            nonlocal count
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            count -= 1
            return call(*args, **kwargs)
        return counting

    for name in ("mkdir", "replace", "rename", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    moving._exchange = counted(moving._exchange if in_one_step else lambda one, other: False)


def write(folder):
    with staged(folder / "m", overwrite=True, companions=[folder / "a", folder / "b"]) as temporary:
        for name in new:
            _write(temporary.with_name(name), kind, "new")


finished = False
while not finished:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for each in old:
            _write(folder / each, kind, "old")
        child = os.fork()
        if child == 0:
            killed_at(len(outcomes))
            write(folder)
            os._exit(0)
        finished = os.waitpid(child, 0)[1] == 0
        left = _tree(folder)
        check_target(folder / "m", overwrite=True)
        outcomes.append((left, _tree(folder)))
print(json.dumps(outcomes))
"""


def _killed_at_every_step(kind, old, new, in_one_step):
    """What is there, and what is there once it was looked at: killed ahead of each step, and not at all."""
    arguments = json.dumps([kind, old, new, in_one_step])
    done = subprocess.run([sys.executable, "-c", KILLED, arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _named(kind, names, text):
    trees = [_outcome(kind, text)] if names else []
    return {key.replace("target", name, 1): value for tree in trees for name in names for key, value in tree.items()}


# Kinds, what is there, what is written, and whether there is a moment at which neither is to be seen.
WRITES = {
    "a new file": ("file", "", "m", False),
    "a new folder": ("folder", "", "m", False),
    "a file": ("file", "m", "m", False),
    "a folder": ("folder", "m", "m", False),
    "a folder, in two steps": ("folder", "m", "m", True),
    "a file with its first companion": ("file", "m", "ma", False),
    "new files": ("file", "", "mab", False),
    "a file with its companion": ("file", "ma", "ma", True),
    "a file without its companion": ("file", "ma", "m", True),
    "a file with another companion": ("file", "ma", "mb", True),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be killed")
@pytest.mark.parametrize("case", WRITES)
def test_killed_at_every_step(case):
    """The old one or the new one, whole: at once where one step makes it, else once the next run has looked."""
    kind, old, new, has_gap = WRITES[case]
    whole = [_named(kind, old, "old"), _named(kind, new, "new")]
    outcomes = _killed_at_every_step(kind, old, new, in_one_step="two steps" not in case)
    assert len(outcomes) > 4
    assert all(after in whole for _, after in outcomes)
    assert [after == whole[1] for _, after in outcomes] == sorted(after == whole[1] for _, after in outcomes)
    for left, _ in outcomes:
        seen = {name: content for name, content in left.items() if not name.startswith(".m-")}
        if "m" in seen:  # never beside what belongs to another
            assert any(tree.items() <= seen.items() for tree in whole if tree), seen
        else:
            assert has_gap or not old
    assert outcomes[0][1] == whole[0]
    assert outcomes[-1] == [whole[1], whole[1]]
