"""What LiteRT has a form for, and what it has not. That the files compute what the model does: test_export.py."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasbn
from kerasbn import OptionError, UnsupportedModelError
from tests.exporters.cases import assert_close, assert_serves, run_litert
from tests.helpers import inference, randomize

pytestmark = pytest.mark.tensorflow


def _through(layer, shape, **options):
    """A model of one layer; its output is called `y`."""
    inputs = keras.Input(shape, name="x", **options)
    return randomize(keras.Model(inputs, {"y": layer(inputs)}))


def _sentences():
    inputs = keras.Input((None,), dtype="int32", name="x")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True, zero_output_for_mask=True))(x)
    sequences, *states = layers.LSTM(3, return_sequences=True, return_state=True, go_backwards=True)(x)
    y = layers.RNN(layers.GRUCell(3, reset_after=False))(sequences, initial_state=states[0])
    return randomize(keras.Model(inputs, {"y": y, "state": states[1]}))


RECURRENT = {
    "LSTM": lambda: _through(layers.LSTM(3), (5, 4)),
    "all outputs": lambda: _through(layers.GRU(3, return_sequences=True), (5, 4)),
    "any length": lambda: _through(layers.LSTM(3, return_sequences=True), (None, 4)),
    "a cell": lambda: _through(layers.RNN(layers.LSTMCell(3)), (None, 4)),
    "masks, states, both ways": _sentences,
}


@pytest.mark.parametrize("case", RECURRENT)
def test_recurrent_layers_take_any_batch(case, tmp_path):
    model = RECURRENT[case]()
    kerasbn.export(model, tmp_path / "model.tflite", verify=False)
    assert_serves(tmp_path / "model.tflite", model, ["x"], sorted(model.output))


def test_sequences_that_are_masked_from_the_start(tmp_path):
    model = _sentences()
    kerasbn.export(model, tmp_path / "model.tflite", verify=False)
    for lengths in ([0, 3], [2, 9], [0, 0]):
        tokens = np.array([[0] * (9 - length) + [1, 2, 3, 4, 5, 6, 7, 8, 9][:length] for length in lengths], "int32")
        expected = dict(zip(["state", "y"], inference(model, tokens), strict=True))
        assert_close(expected, run_litert(tmp_path / "model.tflite", {"x": tokens}))


def test_words(tmp_path):
    inputs = keras.Input((1,), dtype="string", name="words")
    model = keras.Model(inputs, layers.StringLookup(vocabulary=["one", "two"], name="y")(inputs))
    assert kerasbn.export(model, tmp_path / "model.tflite").max_error == 0


class _Values(layers.Layer):
    def call(self, inputs):
        return tf.linalg.svd(inputs)[0]


# What LiteRT's own operators are not enough for, and the operation that is to blame.
BEYOND = {
    "an operation": (lambda: _through(_Values(name="culprit"), (4, 4)), "Svd"),
    "interpolation": (lambda: _through(layers.UpSampling2D(interpolation="bicubic", name="culprit"), (4, 4, 2)), "Res"),
    "five axes": (lambda: _through(layers.PReLU(name="culprit"), (3, 3, 3, 2)), "Add"),
    "convolutional steps": (lambda: _through(layers.ConvLSTM2D(2, 3, name="culprit"), (3, 6, 6, 2)), "TensorList"),
    "integers": (lambda: _through(layers.IntegerLookup(vocabulary=[3], name="culprit"), (1,), dtype="int64"), "Lookup"),
}


@pytest.mark.parametrize("case", BEYOND)
def test_beyond_the_built_in_operators(case, tmp_path):
    build, operation = BEYOND[case]
    with pytest.raises(UnsupportedModelError, match=rf"{operation}\w* \(in [^,]*culprit") as caught:
        kerasbn.export(build(), tmp_path / "model.tflite")
    assert len(str(caught.value)) < 500
    assert not list(tmp_path.iterdir())


def test_without_the_interpreter(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    model = _through(layers.Dense(3), (4,))
    with pytest.raises(OptionError, match=r"kerasbn\[litert\]"):
        kerasbn.export(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
    assert kerasbn.export(model, tmp_path / "model.tflite", verify=False).max_error is None


def test_nothing_is_printed(tmp_path, capfd, caplog):
    model = _through(layers.Dense(3, activation="silu"), (4,))
    capfd.readouterr()
    kerasbn.export(model, tmp_path / "model.tflite")
    printed = capfd.readouterr()
    assert printed.out == ""
    # What TensorFlow writes from C++ goes by the level that it was imported with.
    assert [line for line in printed.err.splitlines() if line[:1] not in "IW"] == []
