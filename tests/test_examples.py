"""The examples run, and do what they say."""

import collections
import json
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import kerasbn
from tests.helpers import randomize

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def run(name, *arguments):
    program = {".py": sys.executable, ".mjs": "node"}[pathlib.Path(name).suffix]
    command = [program, EXAMPLES / name, *arguments]
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


def test_quantize(tmp_path):
    shown = run("quantize.py", "--epochs", "1", "--output", tmp_path)
    size = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert len(size) == 7
    assert all(name in shown for name in size)
    for suffix in (".onnx", ".tflite"):
        assert size[f"digits-float16{suffix}"] < 0.6 * size[f"digits-float32{suffix}"]
        assert size[f"digits-int8{suffix}"] < 0.4 * size[f"digits-float32{suffix}"]


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


@pytest.mark.parametrize("program", ["jax_two_processes", "tf_mirrored", "tf_workers", "torch_ddp"])
def test_distributed(program):
    if program == "torch_ddp":
        pytest.importorskip("torch")
    shown = run(f"distributed/{program}.py")
    told = [line.split(":")[0] for line in shown.splitlines() if line.endswith("between several and one")]
    assert told == ["trained", "calibrated", "exported"]


# A program, the export that it serves, and the file of examples.
SERVING = {
    "with_onnxruntime.py": ("digits.onnx", "digits.npy"),
    "with_tensorflow.py": ("digits", "digits.npy"),
    "browser/node.mjs": ("digits.onnx", "digits.json"),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("program", SERVING)
def test_serving(program, tmp_path):
    if program.endswith(".mjs") and not (shutil.which("node") and (EXAMPLES / "serving/browser/node_modules").is_dir()):
        pytest.skip("needs Node, and onnxruntime-web: make web")
    export, examples = SERVING[program]
    layers = [keras.layers.Dense(20), keras.layers.BatchNormalization(), keras.layers.Dense(10, "softmax")]
    model = randomize(keras.Sequential([keras.Input((64,), name="pixels"), *layers]))
    images = np.random.default_rng(0).normal(0, 30, size=(20, 64)).astype("float32")
    np.save(tmp_path / "digits.npy", images)
    (tmp_path / "digits.json").write_text(json.dumps(images.tolist()))
    kerasbn.export(model, tmp_path / export)
    shown = run(f"serving/{program}", tmp_path / export, tmp_path / examples)
    expected = model.predict(images, verbose=0).argmax(axis=-1)
    assert [int(line) for line in shown.split()] == expected.tolist()
    assert len(set(expected)) > 1
