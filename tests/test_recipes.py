"""The published settings, as options."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import names


class LRN(L.Layer):
    def call(self, x):
        return x / (2.0 + x * x)


class LocalResponseNormalization(LRN):
    pass


def _lrn(x):
    import tensorflow as tf

    return tf.nn.local_response_normalization(x)


def _network(layer):
    inputs = keras.Input((8, 8, 4), name="in")
    x = L.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.1), name="c")(inputs)
    x = L.Dropout(0.5, name="d")(layer(x))
    model = keras.Model(inputs, L.Dense(2, activation="softmax", name="head")(L.Flatten(name="flat")(x)))
    decay = keras.optimizers.schedules.ExponentialDecay(0.01, 600, 0.5)
    model.compile(keras.optimizers.SGD(decay, weight_decay=0.5), "sparse_categorical_crossentropy")
    return model


LOCAL_RESPONSE = {
    "layer": lambda: LRN(name="lrn"),
    "layer by its long name": lambda: LocalResponseNormalization(name="lrn"),
    "lambda": lambda: L.Lambda(lambda x: __import__("tensorflow").nn.lrn(x), output_shape=lambda s: s, name="lrn"),
    "function": lambda: L.Lambda(_lrn, output_shape=lambda s: s, name="lrn"),
}


@pytest.mark.parametrize("layer", LOCAL_RESPONSE)
@pytest.mark.parametrize(("recipe", "scale"), [("BN_X5", 5), ("BN_X30", 30)])
def test_the_published_list(recipe, scale, layer):
    source = _network(LOCAL_RESPONSE[layer]())
    result = kerasbn.rewrite(source, **getattr(kerasbn.recipes, recipe))
    assert names(result) == "in c c_bn c_activation flat head"
    rate = result.optimizer._learning_rate
    np.testing.assert_allclose([float(rate(0)), float(rate(100))], [0.01 * scale, 0.005 * scale], rtol=1e-5)
    assert result.optimizer.weight_decay == pytest.approx(0.1)
    assert result.get_layer("c").kernel_regularizer.l2 == pytest.approx(0.02)
    result.fit(np.zeros((4, 8, 8, 4), "float32"), np.zeros(4), verbose=0)


def test_local_response_normalization_is_kept_unless_asked():
    plan = kerasbn.plan(_network(LRN(name="lrn")))
    assert Reason.LOCAL_RESPONSE in {skip.reason for skip in plan.skips if skip.site == "lrn#0"}


def test_other_layers_are_not_taken_for_it():
    for layer in (L.Lambda(lambda x: x * 2, name="lrn"), L.Rescaling(0.5, name="lrn"), L.Identity(name="lrn")):
        assert "lrn" in names(kerasbn.rewrite(_network(layer), **kerasbn.recipes.BN_X5)).split()


def test_recipes_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        kerasbn.recipes.BN_X5["dropout"] = "none"
