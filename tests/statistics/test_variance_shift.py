"""The variance that Dropout adds, as Li et al. (2018) compute it."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from tests.helpers import snapshot

MEANS = np.array([0.0, 1.0, 3.0])
DATA = (np.random.default_rng(0).normal(size=(4000, 3)) + MEANS).astype("float32")


def _model(rate):
    layers = [L.Dropout(rate, name="d"), L.BatchNormalization(name="n1"), L.Dense(4), L.BatchNormalization(name="n2")]
    return keras.Sequential([keras.Input((3,)), *layers, L.Dropout(0.9), L.Dense(2)])


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5])
def test_it_is_as_computed(rate):
    model = _model(rate)
    before = snapshot(model)
    shift = kerasbn.variance_shift(model, DATA)
    assert shift.keys() == {"n1#0", "n2#0"}
    assert shift["n1#0"] == pytest.approx(np.mean((1 + MEANS**2) / (1 - rate) - MEANS**2), rel=0.05)
    assert snapshot(model) == before


def test_without_dropout_there_is_none():
    result = kerasbn.rewrite(_model(0.5), dropout="all")
    assert set(kerasbn.variance_shift(result, DATA).values()) == {1.0}


def test_masked_values_do_not_count():
    inputs = keras.Input((5, 3))
    x = L.BatchNormalization(name="n")(L.Dropout(0.5)(L.Masking()(inputs)))
    model = keras.Model(inputs, L.LSTM(2)(x))
    data = np.full((200, 5, 3), 2.0, "float32") + np.random.default_rng(0).normal(size=(200, 5, 3)).astype("float32")
    data[:, 3:] = 0
    assert kerasbn.variance_shift(model, data)["n#0"] == pytest.approx((1 + 4) / 0.5 - 4, rel=0.1)
