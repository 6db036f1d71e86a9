"""Recurrent layers that are normalized sequence-wise become the layers that they wrap."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from kerasbn.layers import BatchNormalizedRNN
from tests.helpers import assert_same_function, in_turn, randomize, snapshot

KINDS = {
    "LSTM": functools.partial(L.LSTM, 4),
    "LSTM, no bias": functools.partial(L.LSTM, 4, use_bias=False),
    "GRU": functools.partial(L.GRU, 4, reset_after=False, use_bias=False),
    "GRU, reset after": functools.partial(L.GRU, 4),
    "GRU, reset after, no bias": functools.partial(L.GRU, 4, use_bias=False),
    "SimpleRNN": functools.partial(L.SimpleRNN, 4),
    "cell": lambda **k: L.RNN(L.LSTMCell(4, use_bias=False), **k),
    "stack": lambda **k: L.RNN([L.GRUCell(3), L.LSTMCell(4, dropout=0.5), L.SimpleRNNCell(4, use_bias=False)], **k),
}
FLAGS = {
    "last output": {},
    "sequences": {"return_sequences": True, "zero_output_for_mask": True},
    "backwards": {"go_backwards": True, "return_sequences": True, "return_state": True},
}
X = np.where(np.arange(7)[:, None] < 5, np.random.default_rng(3).normal(size=(4, 7, 5)), 0).astype("float32")

by_kind = pytest.mark.parametrize("kind", KINDS)
by_flags = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)


def model_of(layer):
    inputs = keras.Input((None, 5), name="in")
    return randomize(keras.Model(inputs, layer(L.Masking()(inputs))))


def classes(model):
    return {type(layer) for layer in model._flatten_layers()}


@by_kind
@by_flags
def test_folded(kind, flags):
    stock = KINDS[kind](**flags, name="rnn")
    source = model_of(BatchNormalizedRNN(stock, name="rnn"))
    before = snapshot(source)
    result = kerasbn.fold(source)
    assert snapshot(source) == before
    assert_same_function(source, result, X, tolerance=1e-4)
    assert not any(each.__module__.startswith("kerasbn") for each in classes(result))
    assert type(result.get_layer("rnn")) is type(stock)


NORMS = [None, L.BatchNormalization(scale=False), kerasbn.layers.BatchNormalization()]


@pytest.mark.parametrize(("kind", "norm"), in_turn(KINDS, NORMS))
def test_trained_saved_and_folded(kind, norm, tmp_path):
    layer = BatchNormalizedRNN(KINDS[kind](return_sequences=True), norm)
    source = model_of(L.Bidirectional(layer, name="both"))
    source.compile(keras.optimizers.SGD(0.01), "mse")
    source.fit(X, np.zeros((4, 7, 8)), epochs=2, verbose=0)
    source.save(tmp_path / "source.keras")
    result = kerasbn.fold(keras.models.load_model(tmp_path / "source.keras"))
    assert_same_function(source, result, X, tolerance=1e-4)
    assert not any(each.__module__.startswith("kerasbn") for each in classes(result))
    result.save(tmp_path / "result.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "result.keras"), X)


def test_shared_layer_is_folded_once():
    layer = BatchNormalizedRNN(L.GRU(4), name="rnn")
    inputs = [keras.Input((None, 5)), keras.Input((None, 5))]
    source = randomize(keras.Model(inputs, L.Subtract()([layer(each) for each in inputs])))
    result = kerasbn.fold(source)
    assert BatchNormalizedRNN not in classes(result)
    assert_same_function(source, result, tolerance=1e-4)


STEPS = np.random.default_rng(4).normal(size=(3, 2, 7, 5)).astype("float32")


@pytest.mark.parametrize("steps", [2, None])
@pytest.mark.parametrize("around", [lambda layer: layer, L.Bidirectional], ids=["alone", "bidirectional"])
def test_on_every_step(around, steps):
    inputs = keras.Input((steps, 7, 5))
    layer = L.TimeDistributed(around(BatchNormalizedRNN(L.GRU(4))), name="each")
    source = randomize(keras.Model(inputs, layer(inputs)))
    result = kerasbn.fold(source)
    assert_same_function(source, result, STEPS, tolerance=1e-4)
    assert not any(each.__module__.startswith("kerasbn") for each in classes(result))


def test_outcome_counts_the_normalizations_inside():
    both = L.Bidirectional(BatchNormalizedRNN(L.LSTM(4, return_sequences=True)))
    stack = BatchNormalizedRNN(KINDS["stack"](return_sequences=True))
    unknown = BatchNormalizedRNN(L.RNN([L.GRUCell(3), L.GRUCell(3)]), Subclass())
    each = L.TimeDistributed(keras.Sequential([keras.Input((5,)), L.Dense(5), L.BatchNormalization()]), name="each")
    inputs = keras.Input((None, 5))
    source = keras.Model(inputs, unknown(stack(both(L.BatchNormalization()(L.Dense(5)(each(inputs)))))))
    plan = kerasbn.plan(source, position="none", dropout="none", fold=True)
    assert plan.outcome == "9 batch normalizations: 6 folded, 3 left alone (1 opaque, 2 unknown_subclass)."
    opaque = next(skip for skip in plan.skips if skip.reason is Reason.OPAQUE)
    assert (opaque.site, opaque.detail) == (
        "each#0",
        "TimeDistributed is carried over as it is; batch normalizations inside: 1",
    )


def test_what_is_frozen_stays_frozen():
    both = L.Bidirectional(BatchNormalizedRNN(L.GRU(4)), name="both")
    source = model_of(both)
    both.forward_layer.trainable = False
    result = kerasbn.fold(source).get_layer("both")
    assert (result.forward_layer.trainable, result.backward_layer.trainable) == (False, True)


class Subclass(kerasbn.layers.BatchNormalization):
    pass


def not_finite(layer):
    layer.norms[0].gamma.assign(np.full(16, np.inf))


@pytest.mark.parametrize(
    ("norm", "arguments", "spoil", "reason"),
    [
        (None, {"training": True}, None, Reason.TRAINING),
        (Subclass(), {}, None, Reason.UNKNOWN_SUBCLASS),
        (None, {}, not_finite, Reason.NON_FINITE),
    ],
)
def test_stays(norm, arguments, spoil, reason):
    layer = BatchNormalizedRNN(L.LSTM(4), norm, name="rnn")
    inputs = keras.Input((6, 5))
    source = randomize(keras.Model(inputs, layer(inputs, **arguments)))
    if spoil:
        spoil(layer)
    plan = kerasbn.plan(source, position="none", dropout="none", fold=True)
    assert [skip.reason for skip in plan.skips] == [reason]
    assert not plan.edits


def test_in_half_precision_stays():
    layer = BatchNormalizedRNN(L.LSTM(4, dtype="float16"), name="rnn")
    inputs = keras.Input((6, 5))
    plan = kerasbn.plan(keras.Model(inputs, layer(inputs)), position="none", dropout="none", fold=True)
    assert [skip.reason for skip in plan.skips] == [Reason.PRECISION]
