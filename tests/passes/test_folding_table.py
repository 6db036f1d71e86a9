"""Every linear layer x BN variant x data format x bias, folded back and forward, against float64."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn.arrays import array_of
from kerasbn.layers import BatchNormalization
from tests.helpers import random_inputs, randomize

VARIANTS = {
    "plain": L.BatchNormalization,
    "no center": lambda **kw: L.BatchNormalization(center=False, epsilon=1.0, **kw),
    "no scale": lambda **kw: L.BatchNormalization(scale=False, epsilon=1e-12, **kw),
    "neither": lambda **kw: L.BatchNormalization(center=False, scale=False, **kw),
    "renorm": lambda **kw: L.BatchNormalization(renorm=True, **kw),
    "kerasbn": BatchNormalization,
}

# Each a shape of the input, channels last, and the layer. What is not in CONVOLUTIONS has no data format.
OTHERS = {
    "Dense": ((6,), lambda bias, **kw: L.Dense(5, use_bias=bias, **kw)),
    "Dense, further axes": ((3, 2, 6), lambda bias, **kw: L.Dense(5, use_bias=bias, **kw)),
    "EinsumDense abc,cd->abd": (
        (3, 6),
        lambda bias, **kw: L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d" if bias else None, **kw),
    ),
    "EinsumDense abc,cde->abde": (
        (3, 6),
        lambda bias, **kw: L.EinsumDense("abc,cde->abde", (3, 4, 5), bias_axes="d" if bias else None, **kw),
    ),
    "EinsumDense abc,bcd->abd": (
        (3, 6),
        lambda bias, **kw: L.EinsumDense("abc,bcd->abd", (3, 5), bias_axes="bd" if bias else None, **kw),
    ),
    "EinsumDense abcd,dce->abe": (
        (3, 2, 6),
        lambda bias, **kw: L.EinsumDense("abcd,dce->abe", (3, 5), bias_axes="e" if bias else None, **kw),
    ),
    "EinsumDense ...x,xy->...y": (
        (3, 2, 6),
        lambda bias, **kw: L.EinsumDense("...x,xy->...y", 5, bias_axes="y" if bias else None, **kw),
    ),
}
CONVOLUTIONS = {
    "Conv1D": ((7, 6), lambda bias, **kw: L.Conv1D(8, 3, use_bias=bias, **kw)),
    "Conv1D, dilated": ((7, 6), lambda bias, **kw: L.Conv1D(8, 2, dilation_rate=3, use_bias=bias, **kw)),
    "Conv1D, 2 groups": ((7, 6), lambda bias, **kw: L.Conv1D(8, 3, groups=2, use_bias=bias, **kw)),
    "Conv2D": ((6, 5, 6), lambda bias, **kw: L.Conv2D(8, (3, 2), strides=2, use_bias=bias, **kw)),
    "Conv2D 1x1, padded": ((6, 5, 6), lambda bias, **kw: L.Conv2D(8, 1, padding="same", use_bias=bias, **kw)),
    "Conv2D, patches": ((6, 4, 6), lambda bias, **kw: L.Conv2D(8, 2, 2, padding="same", use_bias=bias, **kw)),
    "Conv2D, 2 groups": ((6, 5, 6), lambda bias, **kw: L.Conv2D(8, 3, groups=2, use_bias=bias, **kw)),
    "Conv2D, 6 groups": ((6, 5, 6), lambda bias, **kw: L.Conv2D(12, 3, groups=6, use_bias=bias, **kw)),
    "Conv3D": ((4, 5, 3, 6), lambda bias, **kw: L.Conv3D(8, (2, 3, 1), use_bias=bias, **kw)),
    "Conv3D, 3 groups": ((4, 5, 3, 6), lambda bias, **kw: L.Conv3D(9, 2, groups=3, use_bias=bias, **kw)),
    "DepthwiseConv1D": ((7, 6), lambda bias, **kw: L.DepthwiseConv1D(3, use_bias=bias, **kw)),
    "DepthwiseConv1D x 2": ((7, 6), lambda bias, **kw: L.DepthwiseConv1D(3, depth_multiplier=2, use_bias=bias, **kw)),
    "DepthwiseConv2D": ((6, 5, 6), lambda bias, **kw: L.DepthwiseConv2D(3, use_bias=bias, **kw)),
    "DepthwiseConv2D x 3": (
        (6, 5, 6),
        lambda bias, **kw: L.DepthwiseConv2D(3, depth_multiplier=3, use_bias=bias, **kw),
    ),
    "SeparableConv1D": ((7, 6), lambda bias, **kw: L.SeparableConv1D(8, 3, use_bias=bias, **kw)),
    "SeparableConv1D x 2": (
        (7, 6),
        lambda bias, **kw: L.SeparableConv1D(8, 3, depth_multiplier=2, use_bias=bias, **kw),
    ),
    "SeparableConv2D": ((6, 5, 6), lambda bias, **kw: L.SeparableConv2D(8, 3, use_bias=bias, **kw)),
    "SeparableConv2D x 2": (
        (6, 5, 6),
        lambda bias, **kw: L.SeparableConv2D(8, 3, depth_multiplier=2, use_bias=bias, **kw),
    ),
    "Conv1DTranspose 1": ((7, 6), lambda bias, **kw: L.Conv1DTranspose(8, 1, use_bias=bias, **kw)),
    "Conv2DTranspose 1x1": ((6, 5, 6), lambda bias, **kw: L.Conv2DTranspose(8, 1, use_bias=bias, **kw)),
    "Conv3DTranspose 1x1x1": ((4, 5, 3, 6), lambda bias, **kw: L.Conv3DTranspose(8, 1, use_bias=bias, **kw)),
}
# With zeros among the inputs: a shift ahead of these stays.
PADDED = {
    "Conv1D, causal": ((7, 6), lambda bias, **kw: L.Conv1D(8, 3, padding="causal", use_bias=bias, **kw)),
    "Conv2D, padded": ((6, 5, 6), lambda bias, **kw: L.Conv2D(8, 3, padding="same", use_bias=bias, **kw)),
    "DepthwiseConv2D, padded": (
        (6, 5, 6),
        lambda bias, **kw: L.DepthwiseConv2D(3, padding="same", use_bias=bias, **kw),
    ),
    "SeparableConv2D, padded": (
        (6, 5, 6),
        lambda bias, **kw: L.SeparableConv2D(8, 3, padding="same", use_bias=bias, **kw),
    ),
    "Conv1DTranspose": ((7, 6), lambda bias, **kw: L.Conv1DTranspose(8, 3, strides=2, use_bias=bias, **kw)),
    "Conv2DTranspose": ((6, 5, 6), lambda bias, **kw: L.Conv2DTranspose(8, 3, strides=2, use_bias=bias, **kw)),
    "Conv2DTranspose, padded": (
        (6, 5, 6),
        lambda bias, **kw: L.Conv2DTranspose(8, 3, padding="same", use_bias=bias, **kw),
    ),
    "Conv3DTranspose": ((4, 5, 3, 6), lambda bias, **kw: L.Conv3DTranspose(8, 2, use_bias=bias, **kw)),
}
LAYERS = {**OTHERS, **CONVOLUTIONS, **PADDED}


def _back(layer, norm):
    return [layer, norm]


def _forward(layer, norm):
    return [L.Activation("tanh"), norm, layer]


def _model(name, wire, *, dtype="float32", data_format="channels_last"):
    """A model with one branch a bias and BN variant; `wire(layer, norm)` gives the order of the two."""
    shape, make = LAYERS[name]
    arguments = {"dtype": dtype} if name in OTHERS else {"dtype": dtype, "data_format": data_format}
    first = data_format == "channels_first"
    inputs = keras.Input((shape[-1], *shape[:-1]) if first else shape, dtype=dtype)
    branches = [
        keras.Sequential(wire(make(bias, **arguments), norm(axis=1 if first else -1, dtype=dtype)))
        for bias in (False, True)
        for norm in VARIANTS.values()
    ]
    return keras.Model(inputs, [branch(inputs) for branch in branches])


def _without_shift(model):
    for branch in model.layers[1:]:
        norm = branch.layers[1]
        norm.moving_mean.assign(norm.moving_mean * 0)
        if norm.beta is not None:
            norm.beta.assign(norm.beta * 0)
    return model


def _assert_folded(name, wire, prepare=lambda model: model):
    model = prepare(randomize(_model(name, wire)))
    reference = _model(name, wire, dtype="float64")
    reference.set_weights(model.get_weights())
    plan = kerasbn.plan(model, fold=True)
    assert not plan.skips
    folded = plan.apply()
    assert not any("moving_mean" in weight.path for weight in folded.weights)
    inputs = random_inputs(reference)
    for expected, got in zip(array_of(reference(inputs)), array_of(folded(inputs.astype("float32"))), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)))
    if name not in OTHERS:
        _assert_same_weights(name, wire, model, folded)


def _assert_same_weights(name, wire, model, folded):
    """Channels first, the weights are the same: not every such convolution runs on a CPU."""
    first = _model(name, wire, data_format="channels_first")
    first.set_weights(model.get_weights())
    for expected, got in zip(folded.get_weights(), kerasbn.fold(first).get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_back_into_the_layer_before(name):
    _assert_folded(name, _back)


@pytest.mark.parametrize("name", {**OTHERS, **CONVOLUTIONS})
def test_forward_into_the_layer_behind(name):
    _assert_folded(name, _forward)


@pytest.mark.parametrize("name", PADDED)
def test_forward_past_zeros_without_a_shift(name):
    _assert_folded(name, _forward, _without_shift)
