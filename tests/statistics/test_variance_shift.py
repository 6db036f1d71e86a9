"""The variance that Dropout adds, as Li et al. (2018) compute it."""

import itertools

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


def test_masks_that_models_inside_are_called_with():
    inputs = keras.Input((5, 3))
    layers = [keras.Input((5, 3)), L.Dropout(0.5), L.BatchNormalization(name="n")]
    counting = keras.ops.any(keras.ops.not_equal(inputs, 0), axis=-1)
    model = keras.Model(inputs, keras.Sequential(layers, name="block")(inputs, mask=counting))
    data = np.full((200, 5, 3), 2.0, "float32") + np.random.default_rng(0).normal(size=(200, 5, 3)).astype("float32")
    data[:, 3:] = 0
    assert kerasbn.variance_shift(model, data)["block/n#0"] == pytest.approx((1 + 4) / 0.5 - 4, rel=0.1)


class Trainer(keras.Model):
    """A functional model that trains in a way of its own."""

    def train_step(self, data):
        raise NotImplementedError


def test_a_model_that_trains_in_its_own_way():
    model = _model(0.5)
    assert kerasbn.variance_shift(Trainer(model.inputs, model.outputs), DATA).keys() == {"n1#0", "n2#0"}


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


BAD = {
    "not built": (lambda: keras.Sequential([L.Dense(2)]), DATA, kerasbn.UnsupportedModelError, "not built"),
    "subclassed": (Subclassed, DATA, kerasbn.UnsupportedModelError, "call is its own"),
    "no model": (lambda: None, DATA, kerasbn.UnsupportedModelError, "Expected a Keras 3 model"),
    "endless": (lambda: _model(0.5), itertools.cycle([DATA]), kerasbn.OptionError, "never ends"),
    "none": (lambda: _model(0.5), None, kerasbn.OptionError, "it is None"),
    "another shape": (lambda: _model(0.5), DATA[:, :2], kerasbn.OptionError, "has shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_measured(case):
    make, data, error, message = BAD[case]
    with pytest.raises(error, match=message):
        kerasbn.variance_shift(make(), data)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_must_be_a_count(steps):
    with pytest.raises(kerasbn.OptionError, match="steps"):
        kerasbn.variance_shift(_model(0.5), DATA, steps=steps)
