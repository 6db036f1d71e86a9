"""What maps pass through: for each operation which do, and that these are exact, both ways.

backward    A(f(x)) = f(A'(x))          forward    f(A(x)) = A'(f(x))
"""

import itertools

import keras
import numpy as np
import pytest
from keras import layers as L

from kerasbn.graph.read import read
from kerasbn.passes.folding.affine import Affine
from kerasbn.passes.folding.transport.table import transport_of
from kerasbn.reasons import Refusal

FIRST = {"data_format": "channels_first"}


def anything(affine):
    return True


def nothing(affine):
    return False


def positive(affine):
    return not affine.has_negative_scale


def centered(affine):
    return not affine.has_shift


def both(*conditions):
    return lambda affine: all(condition(affine) for condition in conditions)


def varies_on(*axes):
    """Along these axes at most, the batch aside."""
    return lambda affine: all(size == 1 or axis in axes for axis, size in enumerate(affine.shape))


# The shape of the input, what is done, which maps pass backward, and which forward.
CASES = {
    "dropout": ((4, 3), L.Dropout(0.5), anything, anything),
    "identity": ((4, 3), L.Identity(), anything, anything),
    "reshape": ((4, 6), L.Reshape((2, 2, 6)), anything, anything),
    "squeeze": ((4, 1, 3), lambda x: keras.ops.squeeze(x, 2), anything, anything),
    "reshape, places to examples": ((4, 6), lambda x: keras.ops.reshape(x, (-1, 2, 6)), varies_on(), varies_on()),
    "reshape, an open size": ((None, 6), L.Reshape((-1, 2, 6)), varies_on(), varies_on()),
    "flatten": ((4, 3, 2), L.Flatten(), anything, anything),
    "flatten, channels first": ((4, 3, 2), L.Flatten("channels_first"), anything, anything),
    "permute": ((4, 3, 2), L.Permute((3, 1, 2)), anything, anything),
    "transpose": ((4, 3, 2), lambda x: keras.ops.transpose(x, (0, -1, 1, 2)), anything, anything),
    "transpose, the batch": ((4, 3), lambda x: keras.ops.transpose(x, (1, 0, 2)), nothing, nothing),
    "transpose, all axes": ((4, 3), keras.ops.transpose, nothing, nothing),
    "zero padding": ((4, 3, 2), L.ZeroPadding2D(((1, 0), (2, 1))), centered, centered),
    "zero padding 1D": ((4, 3), L.ZeroPadding1D((1, 2)), centered, centered),
    "zero padding, channels first": ((4, 3, 2), L.ZeroPadding2D(((1, 0), (2, 1)), **FIRST), centered, centered),
    "pad": ((4, 3), lambda x: keras.ops.pad(x, ((0, 0), (1, 2), (0, 1))), centered, centered),
    "pad, the batch": ((4, 3), lambda x: keras.ops.pad(x, ((1, 0), (1, 2), (0, 1))), nothing, nothing),
    "pad alike": ((4, 3), lambda x: keras.ops.pad(x, 1), nothing, nothing),
    "pad by reflection": ((4, 3), lambda x: keras.ops.pad(x, ((0, 0), (1, 2), (0, 0)), "reflect"), nothing, nothing),
    "cropping": ((5, 6, 2), L.Cropping2D(((1, 0), (2, 1))), anything, anything),
    "cropping, channels first": ((2, 5, 6), L.Cropping2D(((1, 0), (2, 1)), **FIRST), anything, anything),
    "upsampling": ((4, 3, 2), L.UpSampling2D((2, 3)), varies_on(2), varies_on(2)),
    "upsampling, channels first": ((4, 3, 2), L.UpSampling2D((2, 3), **FIRST), varies_on(0), varies_on(0)),
    "average pooling": ((4, 6, 2), L.AveragePooling2D(2), varies_on(2), varies_on(2)),
    "max pooling": ((4, 6, 2), L.MaxPooling2D(2), *[both(positive, varies_on(2))] * 2),
    "max pooling, one place each": ((4, 6, 2), L.MaxPooling2D(1, 2), varies_on(2), varies_on(2)),
    "global average pooling": ((4, 3, 2), L.GlobalAveragePooling2D(), anything, varies_on(2)),
    "global average pooling, axes kept": (
        *((4, 3, 2), L.GlobalAveragePooling2D(keepdims=True)),
        *(anything, varies_on(2)),
    ),
    "global average pooling, channels first": ((4, 3, 2), L.GlobalAveragePooling2D(**FIRST), anything, varies_on(0)),
    "global max pooling": ((4, 3), L.GlobalMaxPooling1D(), positive, both(positive, varies_on(1))),
    "mean": ((4, 3, 2), lambda x: keras.ops.mean(x, axis=(1, -2)), anything, varies_on(2)),
    "mean of the batch": ((4, 3), lambda x: keras.ops.mean(x, axis=0), nothing, nothing),
    "mean of all": ((4, 3), keras.ops.mean, nothing, nothing),
    "relu": ((4, 3), L.ReLU(), *[both(positive, centered)] * 2),
    "leaky relu": ((4, 3), L.LeakyReLU(), *[both(positive, centered)] * 2),
    "relu of every step": ((4, 3), L.TimeDistributed(L.ReLU()), *[both(positive, centered)] * 2),
}


def _site(*shapes, does):
    """The call site of an operation, with a function that computes it."""
    inputs = [keras.Input(shape) for shape in shapes]
    model = keras.Model(inputs, does(inputs if len(inputs) > 1 else inputs[0]))
    sizes = [tuple(4 if size is None else size for size in shape) for shape in shapes]
    values = [np.random.default_rng(seed).normal(size=(2, *shape)) for seed, shape in enumerate(sizes)]
    return read(model).sites[-1], lambda *given: np.asarray(model([each.astype("float32") for each in given])), values


def _maps(shape, seed=0):
    """Maps of a value: along no axis, each one, all that have a size; of both signs, with a shift and without."""
    generator = np.random.default_rng(seed)
    known = [axis for axis, size in enumerate(shape) if size is not None]
    for axes in dict.fromkeys([(), *((axis,) for axis in known), tuple(known)]):
        along = [size if axis in axes else 1 for axis, size in enumerate(shape)]
        for sign, shifted in itertools.product((1, -1), (False, True)):
            yield Affine(sign * generator.uniform(0.5, 2, along), shifted * generator.normal(size=along))


def _passed(step, *given):
    try:
        return step(*given)
    except Refusal:
        return None


def _apply(affine, value):
    return affine.scale * value + affine.shift


@pytest.mark.parametrize("name", CASES)
def test_backward(name):
    shape, does, expected, _ = CASES[name]
    site, compute, values = _site(shape, does=does)
    for affine in _maps(site.outputs[0].shape[1:]):
        maps = _passed(transport_of(site).backward, site, affine)
        assert (maps is not None) == expected(affine)
        if maps is not None:
            got = compute(*map(_apply, maps, values))
            np.testing.assert_allclose(got, _apply(affine, compute(*values)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_forward(name):
    shape, does, _, expected = CASES[name]
    site, compute, values = _site(shape, does=does)
    for affine in _maps(shape):
        passed = _passed(transport_of(site).forward, site, (affine,))
        assert (passed is not None) == expected(affine)
        if passed is not None:
            got = compute(_apply(affine, values[0]))
            np.testing.assert_allclose(got, _apply(passed, compute(*values)), rtol=1e-4, atol=1e-4)


# The shapes of the inputs, what is done, and which maps pass backward; forward, which pairs do.
def always(one, two):
    return True


def scaled_alike(one, two):
    return np.array_equal(*np.broadcast_arrays(one.scale, two.scale))


def equal_and_positive(one, two):
    return one.equals(two) and positive(one)


PAIR = ((3, 2), (3, 2))
MERGES = {
    "add": (PAIR, L.Add(), anything, scaled_alike),
    "plus": (PAIR, lambda x: x[0] + x[1], anything, scaled_alike),
    "subtract": (PAIR, L.Subtract(), anything, scaled_alike),
    "average": (PAIR, L.Average(), anything, scaled_alike),
    "maximum": (PAIR, L.Maximum(), positive, equal_and_positive),
    "minimum": (PAIR, lambda x: keras.ops.minimum(*x), positive, equal_and_positive),
    "concatenate": (PAIR, L.Concatenate(), anything, always),
    "concatenate places": (((3, 2), (4, 2)), L.Concatenate(axis=1), anything, always),
    "concatenate, an open size": (
        *(((None, 2), (3, 2)), L.Concatenate(axis=1)),
        *(anything, lambda one, two: one.equals(two) and varies_on(1)(one)),
    ),
    "concatenate examples": (PAIR, L.Concatenate(axis=0), nothing, lambda one, two: False),
    "a branch spread over places": (
        *(((3, 2), (1, 2)), L.Add()),
        *(varies_on(1), lambda one, two: scaled_alike(one, two) and varies_on(1)(one) and varies_on(1)(two)),
    ),
    "a branch of fewer axes": (((3, 2), (2,)), L.Add(), nothing, lambda one, two: False),
}


@pytest.mark.parametrize("name", MERGES)
def test_backward_into_branches(name):
    shapes, does, expected, _ = MERGES[name]
    site, compute, values = _site(*shapes, does=does)
    for affine in _maps(site.outputs[0].shape[1:]):
        maps = _passed(transport_of(site).backward, site, affine)
        assert (maps is not None) == expected(affine)
        if maps is not None:
            got = compute(*map(_apply, maps, values))
            np.testing.assert_allclose(got, _apply(affine, compute(*values)), rtol=1e-4, atol=1e-4)


def _pairs(shapes):
    """Maps of two values: equal ones, of equal scales, and others."""
    others = list(_maps(shapes[1], seed=1))[:4]
    for one in _maps(shapes[0]):
        yield from ((one, two) for two in others)
        if all(size in (1, length) for size, length in zip(one.shape, shapes[1], strict=False)):
            yield one, one
            yield one, Affine(one.scale, one.shift + 1)


@pytest.mark.parametrize("name", MERGES)
def test_forward_from_branches(name):
    shapes, does, _, expected = MERGES[name]
    site, compute, values = _site(*shapes, does=does)
    for pair in _pairs(shapes):
        passed = _passed(transport_of(site).forward, site, pair)
        assert (passed is not None) == expected(*pair)
        if passed is not None:
            got = compute(*map(_apply, pair, values))
            np.testing.assert_allclose(got, _apply(passed, compute(*values)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "does",
    [
        L.ReLU(6.0),
        L.ReLU(threshold=0.5),
        L.Activation("tanh"),
        L.UnitNormalization(),
        keras.ops.softmax,
        lambda x: x + 1.0,
        lambda x: keras.ops.maximum(x, 0.5),
        lambda x: L.Add()([x, np.ones((1, 4, 3), "float32")]),
        lambda x: x * 2.0,
        lambda x: x[:, 1:],
        keras.Sequential([keras.Input((4, 3)), L.ReLU()]),
    ],
)
def test_nothing_else_is_passed(does):
    site, _, _ = _site((4, 3), does=does)
    assert transport_of(site) is None
