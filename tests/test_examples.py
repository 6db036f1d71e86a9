"""The examples run, and do what they say."""

import collections
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def run(name, *arguments):
    command = [sys.executable, EXAMPLES / name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_vae(tmp_path):
    shown = run("vae.py", "--epochs", "2", "--output", tmp_path)
    assert "9 linear layers: 6 normalized now, 0 normalized already, 3 left alone (3 output)." in shown
    assert "3 batch normalizations folded" in shown
    assert (tmp_path / "decoder.onnx").exists()


def test_speech(tmp_path):
    shown = run("speech.py", "--steps", "3", "--depth", "1", "--output", tmp_path)
    assert "3 batch normalizations folded" in shown
    assert "said 3 1 4 1 5, heard" in shown
    path = tmp_path / "speech.onnx"
    operators = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    assert operators["LSTM"]
    assert not operators["Loop"]
    session = onnxruntime.InferenceSession(path)
    for count, frames in ((1, 40), (3, 77)):
        (logits,) = session.run(None, {"spectrogram": np.zeros((count, frames, 24), "float32")})
        assert logits.shape == (count, (frames + 1) // 2, 11)


@pytest.fixture
def speech(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import speech

    return speech


def test_speech_is_decoded(speech):
    classes = [[0, 4, 4, 0, 4, 2, 2, 0], [0] * 8]
    logits = np.eye(11)[classes]
    assert speech.transcribed(logits) == [[3, 3, 1], []]
    assert speech.error_rate(logits, np.array([[4, 2, 0, 0], [1, 2, 0, 0]])) == 3 / 4


def test_the_loss_does_not_count_padding(speech):
    spectrograms, labels = speech.clips(3, seed=0)
    logits = speech.network(1).predict(spectrograms, verbose=0)
    for frames, label, row in zip(np.any(spectrograms, axis=-1).sum(axis=-1), labels, logits, strict=True):
        counted = row[: (frames + 1) // 2]
        assert len(counted) < len(row)
        losses = [speech.keras.losses.ctc(label[np.newaxis], each[np.newaxis]) for each in (row, counted)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
