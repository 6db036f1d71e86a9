"""Every snippet of the README runs, and prints what it says there."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import keras
import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"


def _snippets(language):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    return [text for kind, text in blocks if kind == language]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.clear_session(free_memory=False)  # names such as "dropout_1" count from the start of a program
    return tmp_path


def test_python(folder, capsys):
    namespace = {}
    for snippet in _snippets("python"):
        exec(compile(snippet, "README.md", "exec"), namespace)
    plans = [block for block in _snippets("") if block.startswith("Plan for")]
    assert capsys.readouterr().out == "".join(plans)
    assert (folder / "digits.onnx").exists()


def test_command_line(folder):
    snippet, *_ = _snippets("python")
    namespace = {}
    exec(snippet.partition("print(")[0], namespace)
    namespace["model"].save("digits.keras")
    (session,) = _snippets("console")
    commands = [line.removeprefix("$ ") for line in session.splitlines()]
    environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands:
        subprocess.run(shlex.split(command), check=True, env=environment, capture_output=True)
    assert {"digits_bn.keras", "digits_copy.onnx", "digits_saved_model"} <= {path.name for path in folder.iterdir()}


def test_make_targets():
    makefile = (README.parent / "Makefile").read_text()
    (commands,) = [block for block in _snippets("") if block.startswith("make ")]
    for target in re.findall(r"^make (\w+)", commands, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
