"""Files that are bad in every way that could be thought of: `tools/bad_files.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent.parent / "tools"

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(sys.platform != "linux", reason="makes pipes, and asks Linux for the memory in use"),
]


def test_a_part_of_them(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    from harm import good, harms, judging

    judge = judging.Judge(good.make(tmp_path), good.KINDS)
    every = harms.every()
    part = every[:: len(every) // 60]
    outcomes = {f"{harm.group}: {harm.name}, {harm.kind.name}": judge.outcome(harm) for harm in part}
    assert len({harm.group for harm in part}) > 8
    assert {name: found for name, found in outcomes.items() if found[0].startswith("FAULT")} == {}


def test_a_judge_sees_faults(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    from harm import good, judging
    from harm.harm import CANARY, Harm

    judge = judging.Judge(good.make(tmp_path), good.KINDS)
    kind = good.KINDS[0]
    faults = {
        "code was run": lambda path, **_: Path(CANARY).touch(),
        "files were left": lambda path, **_: path.with_name("left").touch(),
        "KeyError got out": lambda path, **_: {}["x"],
        "no line to read": lambda path, **_: _raise(judging.ModelFileError("two\nlines")),
    }
    for fault, read in faults.items():
        monkeypatch.setattr(judging, "read", read)
        outcome, _ = judge.outcome(Harm("none", "none", kind, lambda folder: None))
        assert outcome.startswith("FAULT: ")
        assert fault in outcome or (fault == "code was run" and "code" in outcome)


def _raise(error):
    raise error


@pytest.mark.corpus
def test_all_of_them():
    done = subprocess.run([sys.executable, TOOLS / "bad_files.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
