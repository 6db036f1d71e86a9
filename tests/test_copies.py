"""What a model is made into owns its weights, on every backend: its source lives on."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from tests.helpers import random_inputs, sequential, snapshot

VERBS = {
    "rewrite": lambda model: kerasbn.rewrite(model),
    "nothing to do": lambda model: kerasbn.rewrite(model, position="none", dropout="none"),
    "fold": lambda model: kerasbn.fold(model),
    "to_keras": lambda model: kerasbn.layers.to_keras(model),
    "from_keras": lambda model: kerasbn.layers.from_keras(model),
}


def _source(dtype="float32"):
    layers = [L.Dense(8, activation="relu", name="a"), L.Dropout(0.5), L.Dense(6, name="b"), L.BatchNormalization()]
    with_dtype = [type(layer).from_config({**layer.get_config(), "dtype": dtype}) for layer in layers]
    model = sequential(*with_dtype, L.ReLU())
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("verb", VERBS)
def test_using_the_result_leaves_the_source_as_it_is(verb, dtype):
    source = _source(dtype)
    x, y = random_inputs(source, batch=8), np.zeros(8)
    source.fit(x, y, verbose=0)
    before, expected = snapshot(source), source.predict(x, verbose=0)
    result = VERBS[verb](source)
    result.predict(x, verbose=0)
    result.fit(x, y, epochs=2, verbose=0)
    assert snapshot(source) == before
    np.testing.assert_array_equal(source.predict(x, verbose=0), expected)
    source.fit(x, y, verbose=0)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="what only torch has")
@pytest.mark.parametrize("verb", VERBS)
def test_parameters_are_known_to_torch(verb):
    result = VERBS[verb](_source())
    known = {id(value) for value in result.state_dict(keep_vars=True).values()}
    assert known == {id(variable.value) for variable in result.variables}
