"""Recurrent layers are ONNX's operators in the file, normalized ones too once they are folded."""

import functools

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers as L

import kerasbn
from tests.helpers import randomize

pytestmark = pytest.mark.tensorflow

KINDS = {
    "LSTM": (functools.partial(L.LSTM, 4), "LSTM"),
    "LSTM, other activations": (
        functools.partial(L.LSTM, 4, activation="softsign", recurrent_activation="hard_sigmoid", use_bias=False),
        "LSTM",
    ),
    "GRU": (functools.partial(L.GRU, 4, reset_after=False, activation="relu"), "GRU"),
    "GRU, reset after": (functools.partial(L.GRU, 4, recurrent_activation="hard_sigmoid"), "GRU"),
    "GRU, reset after, no bias": (functools.partial(L.GRU, 4, use_bias=False), "GRU"),
    "SimpleRNN": (functools.partial(L.SimpleRNN, 4), "RNN"),
    "SimpleRNN, linear": (functools.partial(L.SimpleRNN, 4, activation=None), "RNN"),
}
FLAGS = {
    "last output": {},
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True, "return_sequences": True, "return_state": True},
    "dropout": {"dropout": 0.5, "recurrent_dropout": 0.5},
}


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node} & {"LSTM", "GRU", "RNN", "Loop", "Scan", "PyFunc"}


def assert_runs_as(model, path):
    """At two batch sizes and two lengths."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for batch, steps in ((1, 3), (5, 11)):
        given = {
            each.name: generator.normal(size=(batch, steps, 5) if len(each.shape) == 3 else (batch, 4)).astype(
                "float32"
            )
            for each in session.get_inputs()
        }
        expected = keras.tree.flatten(model([given[each.name] for each in model.inputs], training=False))
        for one, other in zip(expected, session.run(None, given), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, flags, tmp_path):
    make, operator = KINDS[kind]
    inputs = keras.Input((None, 5), name="x")
    model = randomize(keras.Model(inputs, make(**flags)(inputs)))
    kerasbn.export(model, tmp_path / "model.onnx")
    assert operators(tmp_path / "model.onnx") == {operator}
    assert_runs_as(model, tmp_path / "model.onnx")
    assert not any("inner_loop" in vars(layer) for layer in model.layers)


@pytest.mark.parametrize("kind", ["LSTM", "GRU, reset after", "SimpleRNN"])
def test_normalized_layers(kind, tmp_path):
    make, operator = KINDS[kind]
    inputs = keras.Input((None, 5), name="x")
    x = L.Bidirectional(make(return_sequences=True))(inputs)
    source = keras.Model(inputs, L.Dense(3)(make(return_sequences=True)(x)))
    model = randomize(kerasbn.rewrite(source, recurrent="sequence_wise"))
    report = kerasbn.export(model, tmp_path / "model.onnx")
    assert (report.folded, report.kept) == (2, {})
    assert operators(tmp_path / "model.onnx") == {operator}
    assert_runs_as(model, tmp_path / "model.onnx")


def test_states_that_are_given(tmp_path):
    inputs, state = keras.Input((None, 5), name="x"), keras.Input((4,), name="state")
    outputs, h, c = L.LSTM(4, return_state=True)(inputs, initial_state=[state, state * 2.0])
    model = randomize(keras.Model([inputs, state], [L.GRU(4)(inputs, initial_state=h), outputs, c]))
    kerasbn.export(model, tmp_path / "model.onnx")
    assert operators(tmp_path / "model.onnx") == {"LSTM", "GRU"}
    assert_runs_as(model, tmp_path / "model.onnx")


def test_layer_that_is_called_twice_stores_its_weights_once(tmp_path):
    inputs, other = keras.Input((None, 5), name="x"), keras.Input((None, 5), name="y")
    layer = L.LSTM(64)
    model = randomize(keras.Model([inputs, other], L.Subtract()([layer(inputs), layer(other)])))
    report = kerasbn.export(model, tmp_path / "model.onnx")
    assert report.bytes < 1.2 * 4 * model.count_params()


def _masked():
    inputs = keras.Input((None, 5), name="x")
    return keras.Model(inputs, L.LSTM(4)(L.Masking()(inputs)))


def _one(layer):
    inputs = keras.Input((None, 5), name="x")
    return keras.Model(inputs, layer(inputs))


LOOPS = {
    "a mask": _masked,
    "an activation that the operator has not": lambda: _one(L.LSTM(4, activation="gelu")),
    "a cell": lambda: _one(L.RNN(L.GRUCell(4, activation="gelu"))),
}


@pytest.mark.parametrize("case", LOOPS)
def test_what_stays_a_loop(case, tmp_path):
    model = randomize(LOOPS[case]())
    kerasbn.export(model, tmp_path / "model.onnx")
    assert operators(tmp_path / "model.onnx") == {"Loop"}
    assert_runs_as(model, tmp_path / "model.onnx")
