"""Recurrent layers are normalized sequence-wise, as they are asked to be, and compute what they did."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from kerasbn.layers import BatchNormalizedRNN
from tests.helpers import assert_same_function, in_turn, names, randomize, snapshot

KINDS = {
    "LSTM": functools.partial(L.LSTM, 4, activation="softsign"),
    "LSTM, no bias": functools.partial(L.LSTM, 4, use_bias=False),
    "GRU": functools.partial(L.GRU, 4, reset_after=False),
    "GRU, reset after": functools.partial(L.GRU, 4),
    "GRU, reset after, no bias": functools.partial(L.GRU, 4, use_bias=False),
    "SimpleRNN": functools.partial(L.SimpleRNN, 4),
    "cell": lambda **k: L.RNN(L.LSTMCell(4), **k),
    "stack": lambda **k: L.RNN([L.GRUCell(3), L.LSTMCell(4, dropout=0.5), L.SimpleRNNCell(4, use_bias=False)], **k),
}
FLAGS = {
    "last output": {},
    "sequences": {"return_sequences": True, "zero_output_for_mask": True},
    "unrolled": {"return_sequences": True, "unroll": True},
    "backwards": {"go_backwards": True, "return_sequences": True, "return_state": True},
}
X = np.where(np.arange(7)[:, None] < 5, np.random.default_rng(3).normal(size=(4, 7, 5)), 0).astype("float32")

by_kind = pytest.mark.parametrize("kind", KINDS)


def model_of(layer, steps=None):
    inputs = keras.Input((steps, 5), name="in")
    return randomize(keras.Model(inputs, layer(L.Masking()(inputs))))


def recurrent(model, name="rnn"):
    """The recurrent layers of that name, those of both directions."""
    layer = model.get_layer(name)
    return [layer.forward_layer, layer.backward_layer] if isinstance(layer, L.Bidirectional) else [layer]


def is_normalized(model, name="rnn"):
    kinds = {type(each) is BatchNormalizedRNN for each in recurrent(model, name)}
    assert len(kinds) == 1
    return kinds.pop()


def reasons(plan, site="rnn#0"):
    return [skip.reason for skip in plan.skips if skip.site == site]


@by_kind
@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "bidirectional"])
def test_computes_the_same_and_folds_back(kind, flags, wrapped):
    if wrapped and flags.get("unroll", flags.get("go_backwards")):
        pytest.skip("Keras has no such layer, or refuses it")
    layer = KINDS[kind](**flags, name="rnn")
    source = model_of(L.Bidirectional(layer, name="rnn") if wrapped else layer, steps=7)
    before = snapshot(source)
    result = kerasbn.rewrite(source, recurrent="sequence_wise")
    assert snapshot(source) == before
    assert is_normalized(result)
    assert_same_function(source, result, X, tolerance=1e-5)
    back = kerasbn.fold(result)
    assert not is_normalized(back)
    assert_same_function(source, back, X, tolerance=1e-5)


NORMS = [None, L.BatchNormalization(momentum=0.7, epsilon=1e-4)]


@pytest.mark.parametrize(("kind", "preserve", "norm"), in_turn(KINDS, [True, False], NORMS))
def test_trains_and_folds(kind, preserve, norm):
    source = model_of(L.Bidirectional(KINDS[kind](return_sequences=True), name="rnn"))
    result = kerasbn.rewrite(source, recurrent="sequence_wise", norm=norm, preserve=preserve)
    result.compile(keras.optimizers.SGD(0.01), "mse")
    result.fit(X, np.zeros((4, 7, 8)), epochs=2, verbose=0)
    for layer in recurrent(result):
        assert all(np.any(each.moving_mean) for each in layer.norms)
        if norm is not None:
            assert {(type(each), each.momentum, each.epsilon) for each in layer.norms} == {
                (L.BatchNormalization, 0.7, 1e-4)
            }
    assert_same_function(result, kerasbn.fold(result), X, tolerance=1e-4)


@by_kind
def test_no_weight_that_does_the_same_twice(kind):
    """A bias of the cell does what beta would."""
    source = model_of(KINDS[kind](name="rnn"))
    result = kerasbn.rewrite(source, recurrent="sequence_wise", norm=L.BatchNormalization())
    (layer,) = recurrent(result)
    cells = getattr(layer.cell, "cells", [layer.cell])
    assert [norm.center for norm in layer.norms] == [not cell.use_bias for cell in cells]
    gammas = sum(int(np.prod(norm.gamma.shape)) for norm in layer.norms)
    betas = sum(int(np.prod(norm.beta.shape)) for norm in layer.norms if norm.center)
    assert sum(int(np.prod(w.shape)) for w in result.trainable_weights) == gammas + betas + sum(
        int(np.prod(weight.shape)) for weight in source.trainable_weights
    )


WANTED = {
    "auto": ({}, False, Reason.RECURRENT),
    "none": ({"recurrent": "none"}, False, Reason.RECURRENT),
    "sequence-wise": ({"recurrent": "sequence_wise"}, True, None),
    "no position": ({"position": "none", "recurrent": "sequence_wise"}, True, None),
    "a rule for it": ({"rules": [("rnn", "before")]}, True, None),
    "a rule for it, auto": ({"rules": [("r*", "auto")]}, True, None),
    "a rule for it, against none": ({"recurrent": "none", "rules": [("rnn", "before")]}, True, None),
    "a rule, after": ({"recurrent": "sequence_wise", "rules": [("rnn", "after")]}, False, Reason.NO_ACTIVATION),
    "a rule against it": ({"recurrent": "sequence_wise", "rules": [("rnn", "skip")]}, False, Reason.RULE),
    "a rule says none": ({"recurrent": "sequence_wise", "rules": [("*", "none")]}, False, Reason.RULE),
    "another norm": ({"recurrent": "sequence_wise", "norm": L.LayerNormalization()}, False, Reason.NORM),
}


@pytest.mark.parametrize("case", WANTED)
def test_as_it_is_asked_for(case):
    options, wanted, reason = WANTED[case]
    source = model_of(L.LSTM(4, name="rnn"))
    plan = kerasbn.plan(source, **options)
    assert is_normalized(plan.apply()) == wanted
    assert reasons(plan) == ([] if wanted else [reason])
    assert ("1 recurrent layer: 1 normalized now" in plan.outcome) == wanted


def _stack(count, make=lambda name: L.LSTM(4, return_sequences=True, name=name)):
    inputs = keras.Input((6, 5))
    x = L.Conv1D(5, 3, activation="relu", padding="same", name="conv")(inputs)
    for number in range(count):
        x = make(f"rnn{number}")(x)
    return randomize(keras.Model(inputs, L.Dense(2, name="head")(x)))


def _side_by_side():
    inputs = keras.Input((6, 5))
    return randomize(keras.Model(inputs, L.Add()([L.GRU(4, name=f"rnn{number}")(inputs) for number in range(4)])))


def _encoder_and_decoder():
    """Two layers each: what the encoder ends with is where the decoder starts, not what it goes along."""
    inputs = keras.Input((6, 5)), keras.Input((6, 5))
    (x, y), states = inputs, []
    for number in range(2):
        x, *state = L.LSTM(4, return_sequences=True, return_state=True, name=f"rnn{number}")(x)
        states.append(state)
    for number in range(2):
        y = L.LSTM(4, return_sequences=True, name=f"rnn{number + 2}")(y, initial_state=states[number])
    return randomize(keras.Model(inputs, y))


def _both_ways(name):
    return L.Bidirectional(L.GRU(4, return_sequences=True), name=name)


AUTOMATIC = {
    "one": (lambda: _stack(1), {}, []),
    "two": (lambda: _stack(2), {}, []),
    "three": (lambda: _stack(3), {}, [0, 1, 2]),
    "five, both ways": (lambda: _stack(5, _both_ways), {}, [0, 1, 2, 3, 4]),
    "three, one by a rule not": (lambda: _stack(3), {"rules": [("rnn1", "skip")]}, [0, 2]),
    "three, but no position": (lambda: _stack(3), {"position": "none"}, []),
    "three, a norm of Keras's": (lambda: _stack(3), {"norm": L.BatchNormalization()}, []),
    "three, a norm of Keras's and a rule": (
        lambda: _stack(3),
        {"norm": L.BatchNormalization(), "rules": [("rnn1", "before")]},
        [1],
    ),
    "four side by side": (_side_by_side, {}, []),
    "encoder and decoder": (_encoder_and_decoder, {}, []),
}


@pytest.mark.parametrize("case", AUTOMATIC)
def test_what_is_normalized_unasked(case):
    make, options, expected = AUTOMATIC[case]
    source = make()
    plan = kerasbn.plan(source, **options)
    sites = {edit.site for edit in plan.edits if edit.kind == "insert" and edit.site.startswith("rnn")}
    assert sites == {f"rnn{number}#0" for number in expected}
    assert_same_function(source, plan.apply())


class OwnCell(L.LSTMCell):
    pass


class CellWithoutConfig(L.Layer):
    def __init__(self, units, norm=None):
        super().__init__()
        self.state_size = units
        self.dense = L.Dense(units)
        self.dropout = L.Dropout(0.5)

    def call(self, inputs, states):
        outputs = self.dense(self.dropout(inputs)) + states[0]
        return outputs, [outputs]


@keras.saving.register_keras_serializable("tests")
class OwnLayer(L.GRU):
    pass


LEFT_ALONE = {
    "convolutional": (lambda: L.ConvLSTM1D(2, 2, name="rnn"), (5, 4, 3), {}, Reason.OPAQUE),
    "of a cell of one's own": (lambda: L.RNN(OwnCell(3), name="rnn"), (5, 4), {}, Reason.OPAQUE),
    "of a cell without a config": (lambda: L.RNN(CellWithoutConfig(3), name="rnn"), (5, 4), {}, Reason.OPAQUE),
    "one cell of one's own": (lambda: L.RNN([L.GRUCell(3), OwnCell(3)], name="rnn"), (5, 4), {}, Reason.OPAQUE),
    "of one's own": (lambda: OwnLayer(3, name="rnn"), (5, 4), {}, Reason.OPAQUE),
    "of one's own, both ways": (lambda: L.Bidirectional(OwnLayer(3), name="rnn"), (5, 4), {}, Reason.OPAQUE),
    "normalized": (lambda: BatchNormalizedRNN(L.LSTM(3), name="rnn"), (5, 4), {}, Reason.NORMALIZED),
    "normalized, both ways": (
        lambda: L.Bidirectional(BatchNormalizedRNN(L.LSTM(3)), name="rnn"),
        (5, 4),
        {},
        Reason.NORMALIZED,
    ),
    "zeroes other steps": (
        lambda: L.Bidirectional(L.LSTM(3, unroll=True, return_sequences=True), name="rnn"),
        (5, 4),
        {},
        Reason.OPAQUE,
    ),
    "frozen": (lambda: L.LSTM(3, trainable=False, name="rnn"), (5, 4), {}, Reason.NEVER_TRAINS),
    "told to train": (lambda: L.LSTM(3, name="rnn"), (5, 4), {"training": True}, Reason.TRAINING),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_is_left_alone(case):
    make, shape, arguments, reason = LEFT_ALONE[case]
    inputs = keras.Input(shape)
    source = keras.Model(inputs, make()(inputs, **arguments))
    plan = kerasbn.plan(source, recurrent="sequence_wise")
    assert reasons(plan) == [reason]
    assert not plan.edits
    assert "0 normalized now" in plan.outcome


def test_functions_of_ones_own_come_along():
    source = model_of(L.SimpleRNN(4, activation=lambda x: keras.ops.tanh(2 * x), name="rnn"))
    result = kerasbn.rewrite(source, recurrent="sequence_wise")
    assert_same_function(source, result, X)
    assert_same_function(source, kerasbn.fold(kerasbn.rewrite(result, position="none")), X)


def test_initial_states_and_masks_go_in_as_before():
    inputs, state = keras.Input((6, 5), name="x"), keras.Input((4,), name="state")
    masked = L.Masking()(inputs)
    outputs, *states = L.LSTM(4, return_sequences=True, return_state=True, name="a")(
        masked, initial_state=[state, L.Dense(4, name="d")(state)]
    )
    outputs = L.Bidirectional(L.GRU(4), name="rnn")(outputs, initial_state=[states[0], states[1]])
    source = randomize(keras.Model({"x": inputs, "state": state}, outputs))
    result = kerasbn.rewrite(source, recurrent="sequence_wise", position="none")
    assert is_normalized(result, "a")
    assert is_normalized(result)
    given = {"x": X[:, :6], "state": np.random.default_rng(0).normal(size=(4, 4)).astype("float32")}
    assert_same_function(source, result, given)


def test_stateful_layers_go_on_from_batch_to_batch():
    inputs = keras.Input(batch_shape=(4, 7, 5))
    rnn = L.LSTM(4, stateful=True, return_sequences=True, dropout=0.5, name="rnn")
    source = randomize(keras.Model(inputs, rnn(inputs)))
    result = kerasbn.rewrite(source, recurrent="sequence_wise", position="none")
    back = kerasbn.fold(result)
    assert np.any(np.asarray(source(X)) != np.asarray(source(X)))
    rnn.reset_state()
    for _ in range(2):
        expected = source(X)
        np.testing.assert_allclose(result(X), expected, atol=1e-5)
        np.testing.assert_allclose(back(X), expected, atol=1e-5)


def test_shared_layer_is_normalized_once():
    layer = L.GRU(4, name="rnn")
    inputs = [keras.Input((None, 5)), keras.Input((None, 5))]
    source = randomize(keras.Model(inputs, L.Subtract()([layer(each) for each in inputs])))
    plan = kerasbn.plan(source, recurrent="sequence_wise")
    assert [edit.site for edit in plan.edits] == ["rnn#0", "rnn#1"]
    assert_same_function(source, plan.apply())


def test_inside_of_models_inside():
    inner = keras.Sequential([keras.Input((None, 5)), L.LSTM(4, name="rnn")], name="inner")
    inputs = [keras.Input((None, 5)), keras.Input((None, 5))]
    source = randomize(keras.Model(inputs, L.Subtract()([inner(each) for each in inputs])))
    result = kerasbn.rewrite(source, rules=[("inner/rnn", "before")])
    assert is_normalized(result.get_layer("inner"))
    assert_same_function(source, result)


def test_training_goes_on_where_the_optimizer_stands():
    source = model_of(L.LSTM(4, name="rnn"))
    source.compile(keras.optimizers.Adam(0.01), "mse")
    source.fit(X, np.zeros((4, 4)), epochs=2, verbose=0)
    plan = kerasbn.plan(source, recurrent="sequence_wise")
    result = plan.apply()
    assert "it starts afresh on those of what normalizes in rnn" in "".join(plan.notes)
    assert int(result.optimizer.iterations) == int(source.optimizer.iterations)
    slots = {variable.shape: variable.numpy() for variable in source.optimizer._momentums}
    found = [each for each in result.optimizer._momentums if np.any(each)]
    assert len(found) == len(slots) == 3
    for each in found:
        np.testing.assert_array_equal(each, slots[each.shape])


DROPOUT = {"dropout": 0.3, "recurrent_dropout": 0.2}


@pytest.mark.parametrize("normalized", [True, False], ids=["normalized before", "normalized now"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN", "cell", "stack"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "bidirectional"])
def test_dropout_ahead_of_its_normalization(kind, wrapped, normalized):
    layer = {
        "cell": lambda: L.RNN(L.LSTMCell(4, **DROPOUT), name="rnn"),
        "stack": lambda: L.RNN([L.GRUCell(3, **DROPOUT), L.SimpleRNNCell(4, dropout=0.3)], name="rnn"),
    }.get(kind, lambda: getattr(L, kind)(4, name="rnn", **DROPOUT))()
    layer = BatchNormalizedRNN(layer, name="rnn") if normalized else layer
    source = model_of(L.Bidirectional(layer, name="rnn") if wrapped else layer)
    expected = {"redundant": (0.0, 0.2), "all": (0.0, 0.0), "none": (0.3, 0.2)}
    for option, rates in expected.items():
        plan = kerasbn.plan(source, recurrent="sequence_wise", dropout=option)
        result = plan.apply()
        assert is_normalized(result)
        for each in recurrent(result):
            cells = getattr(each.cell, "cells", [each.cell])
            assert {cell.dropout for cell in cells} == {rates[0]}
            assert cells[0].recurrent_dropout == rates[1]
        assert (Reason.RECURRENT_DROPOUT in reasons(plan)) == (option == "redundant")
        assert_same_function(source, result, X)
    assert_same_function(source, kerasbn.rewrite(source, recurrent="sequence_wise", dropout="all", data=X), X)


def test_dropout_layer_ahead_of_a_recurrent_layer_goes_if_that_is_normalized():
    layers = [L.Dropout(0.5, name="d"), L.LSTM(4, return_sequences=True, name="rnn"), L.Dropout(0.5, name="e")]
    source = randomize(keras.Sequential([keras.Input((6, 5)), *layers, L.GRU(4, name="last")]))
    assert names(kerasbn.rewrite(source, recurrent="sequence_wise")) == "rnn last"
    assert names(kerasbn.rewrite(source, rules=[("rnn", "before")])) == "rnn e last"
    assert names(kerasbn.rewrite(source)) == "d rnn e last"


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "LSTM, no bias", "GRU, reset after", "SimpleRNN", "cell"])
def test_measured_statistics(kind, wrapped):
    layer = KINDS[kind](return_sequences=True, name="rnn")
    source = model_of(L.Bidirectional(layer, name="rnn") if wrapped else layer)
    result = kerasbn.rewrite(source, recurrent="sequence_wise", data=X)
    assert_same_function(source, result, X, tolerance=1e-5)
    for before, after in zip(recurrent(source), recurrent(result), strict=True):
        products = X[:, :5].reshape(-1, 5) @ np.asarray(before.cell.kernel)
        np.testing.assert_allclose(after.norms[0].moving_mean, products.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(after.norms[0].moving_variance, products.var(0, ddof=1), rtol=1e-4)
        assert not after.norms[0].zero_debias


def test_measured_but_as_initialized():
    source = model_of(L.LSTM(4, name="rnn"))
    result = kerasbn.rewrite(source, recurrent="sequence_wise", data=X, preserve=False)
    (norm,) = recurrent(result)[0].norms
    assert np.all(np.asarray(norm.gamma) == 1)
    assert np.any(np.asarray(norm.moving_mean))
