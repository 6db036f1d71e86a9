"""What `TimeDistributed` applies to every step absorbs normalizations as it would by itself."""

import keras
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, names, randomize

STEPS = L.TimeDistributed
CASES = {
    "dense": ((5, 6), lambda: [STEPS(L.Dense(4), name="a"), L.BatchNormalization(name="n")]),
    "forward": ((5, 6), lambda: [L.BatchNormalization(name="n"), STEPS(L.Dense(4, activation="relu"), name="a")]),
    "convolution": (
        (3, 8, 8, 4),
        lambda: [STEPS(L.Conv2D(4, 3, use_bias=False), name="a"), L.BatchNormalization(name="n")],
    ),
    "forward, without padding": (
        (3, 8, 8, 4),
        lambda: [L.BatchNormalization(name="n"), STEPS(L.Conv2D(4, 3), name="a")],
    ),
    "the normalization": ((5, 6), lambda: [STEPS(L.Dense(4), name="a"), STEPS(L.BatchNormalization(), name="n")]),
    "the normalization of an axis": (
        (3, 4, 8, 8),
        lambda: [L.BatchNormalization(axis=2, name="m"), STEPS(L.BatchNormalization(axis=1), name="n"), L.Flatten()],
    ),
    "the normalization alone": (
        (5, 6),
        lambda: [L.ReLU(), STEPS(L.BatchNormalization(), name="n")],
    ),
    "wrapped twice": ((3, 5, 6), lambda: [STEPS(STEPS(L.Dense(4)), name="a"), L.BatchNormalization(name="n")]),
}


@pytest.mark.parametrize("case", CASES)
def test_folded(case):
    shape, make = CASES[case]
    source = randomize(keras.Sequential([keras.Input(shape, name="in"), *make(), L.Flatten(name="flat"), L.Dense(2)]))
    result = kerasbn.fold(source)
    assert "n" not in names(result).split()
    assert_same_function(source, result, tolerance=1e-4)


def test_an_activation_inside_is_in_the_way():
    layers = [STEPS(L.Dense(4, activation="tanh"), name="a"), L.BatchNormalization(name="n"), L.LSTM(3, name="rnn")]
    source = randomize(keras.Sequential([keras.Input((5, 6), name="in"), *layers]))
    result = kerasbn.fold(source)
    assert "n" in names(result).split()
    assert_same_function(source, result)


def test_padding_inside_is_in_the_way():
    layers = [L.BatchNormalization(name="n"), STEPS(L.Conv2D(4, 3, padding="same"), name="a")]
    source = randomize(keras.Sequential([keras.Input((3, 8, 8, 4), name="in"), *layers, L.ReLU()]))
    result = kerasbn.fold(source)
    assert "n" in names(result).split()
    assert_same_function(source, result)


def test_a_normalization_inside_that_stays_takes_others_in():
    layers = [L.ReLU(), STEPS(L.BatchNormalization(), name="m"), L.BatchNormalization(name="n"), L.LSTM(3, name="rnn")]
    source = randomize(keras.Sequential([keras.Input((5, 6)), *layers]))
    plan = kerasbn.plan(source, position="none", fold=True)
    assert [edit.site for edit in plan.edits] == ["n#0"]
    assert [(skip.site, skip.reason) for skip in plan.skips] == [("m#0", Reason.NONLINEAR)]
    assert_same_function(source, plan.apply(), tolerance=1e-4)


@pytest.mark.parametrize("position", ["before", "after"])
def test_round_trip(position):
    layers = [STEPS(L.Conv2D(4, 3, activation="relu"), name="a"), L.Flatten(name="flat")]
    source = randomize(keras.Sequential([keras.Input((3, 8, 8, 4), name="in"), *layers, L.Dense(2, name="head")]))
    assert_same_function(source, kerasbn.fold(kerasbn.rewrite(source, position=position)))
