"""The examples run, and do what they say."""

import pathlib
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def test_vae(tmp_path):
    command = [sys.executable, EXAMPLES / "vae.py", "--epochs", "2", "--output", tmp_path]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "9 linear layers: 6 normalized now, 0 normalized already, 3 left alone (3 output)." in shown
    assert "3 batch normalizations folded" in shown
    assert (tmp_path / "decoder.onnx").exists()
