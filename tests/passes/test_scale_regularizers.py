"""Regularizers of weights are scaled, wherever the layer keeps them."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, sequential, snapshot

SEQUENCE = (5, 6)
L2 = keras.regularizers.L2(0.1)


class Orthogonal(L.Dense):
    """A layer whose regularizer is not among its arguments."""

    def build(self, shape):
        super().build(shape)
        self.kernel.regularizer = keras.regularizers.OrthogonalRegularizer(0.1)


LAYERS = {
    "dense": (lambda: [L.Dense(8, kernel_regularizer=L2, name="a")], (12,)),
    "with an activation": (lambda: [L.Dense(8, "relu", kernel_regularizer=L2, name="a")], (12,)),
    "of the bias too": (
        lambda: [L.Dense(8, kernel_regularizer="l1", bias_regularizer=keras.regularizers.L1L2(0.1, 0.2), name="a")],
        (12,),
    ),
    "convolution": (
        lambda: [L.Conv1D(8, 3, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2), name="a"), L.Flatten()],
        SEQUENCE,
    ),
    "recurrent": (lambda: [L.LSTM(4, recurrent_regularizer=L2, kernel_regularizer=L2, name="a")], SEQUENCE),
    "both ways": (lambda: [L.Bidirectional(L.GRU(4, kernel_regularizer=L2), name="a")], SEQUENCE),
    "every step": (lambda: [L.TimeDistributed(L.Dense(4, kernel_regularizer=L2), name="a"), L.Flatten()], SEQUENCE),
    "a model inside": (
        lambda: [keras.Sequential([keras.Input((12,)), L.Dense(8, kernel_regularizer=L2, name="a")], name="inner")],
        (12,),
    ),
}


def _penalty(model):
    """What the regularizers of the weights add to the loss."""
    return sum(float(v.regularizer(v)) for v in model.trainable_variables if v.regularizer is not None)


def _source(make, shape):
    source = sequential(*make(), shape=shape)
    source.compile("sgd", "sparse_categorical_crossentropy")
    return source


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
@pytest.mark.parametrize("position", ["none", "after"])
@pytest.mark.parametrize("kind", LAYERS)
def test_scaled(kind, position, copy, tmp_path):
    source = _source(*LAYERS[kind])
    before = snapshot(source)
    result = kerasbn.rewrite(source, weight_decay_scale=0.2, position=position, copy=copy)
    assert _penalty(source) > 0
    assert _penalty(result) == pytest.approx(0.2 * _penalty(source), rel=1e-5)
    assert_same_function(source, result)
    assert not {id(variable) for variable in result.get_layer(result.layers[0].name).variables} & {
        id(variable) for variable in source.variables
    }
    if copy:
        assert snapshot(source) == before
    result.save(tmp_path / "scaled.keras")
    assert _penalty(keras.models.load_model(tmp_path / "scaled.keras")) == pytest.approx(_penalty(result), rel=1e-5)


def test_activity_regularizers_stay():
    source = _source(lambda: [L.Dense(8, kernel_regularizer=L2, activity_regularizer=L2, name="a")], (12,))
    result = kerasbn.rewrite(source, weight_decay_scale=0.2, position="none")
    assert result.get_layer("a").activity_regularizer.l2 == pytest.approx(0.1)
    assert result.get_layer("a").kernel_regularizer.l2 == pytest.approx(0.02)


def test_what_cannot_be_scaled_is_said():
    source = _source(lambda: [Orthogonal(8, name="a")], (12,))
    plan = kerasbn.plan(source, weight_decay_scale=0.2)
    assert Reason.REGULARIZER in {skip.reason for skip in plan.skips if skip.site == "a#0"}


def test_a_recurrent_layer_keeps_its_weights_both_ways():
    source = _source(*LAYERS["both ways"])
    result = kerasbn.rewrite(source, weight_decay_scale=0.2)
    for ours, theirs in zip(result.get_layer("a").weights, source.get_layer("a").weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
