"""What writes a model is killed: `tools/kill_writes.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent.parent / "tools" / "kill_writes.py"

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be killed"),
]


@pytest.mark.parametrize("tries", [pytest.param(200, marks=pytest.mark.corpus), 3])
def test_the_old_one_or_the_new_one(tries):
    done = subprocess.run(
        [sys.executable, TOOL, "--tries", str(tries), "--no-page"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("'anything else'") == 0
