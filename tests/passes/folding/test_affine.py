"""The algebra of affine maps, on arrays alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kerasbn.catalog.normalization import map_from
from kerasbn.passes.folding.affine import Affine, identity

SHAPE = (3, 2, 4)
NUMBERS = st.sampled_from([-2.0, -0.5, 0.0, 1.0, 3.0])


@st.composite
def maps(draw):
    def array():
        shape = tuple(draw(st.sampled_from([1, size])) for size in SHAPE)
        return draw(arrays.arrays(np.float64, shape, elements=NUMBERS))

    return Affine(array(), array())


def _apply(affine, x):
    return affine.scale * x + affine.shift


X = np.random.default_rng(0).normal(size=SHAPE)


@given(maps(), maps())
def test_composition(outer, inner):
    np.testing.assert_allclose(_apply(outer.after(inner), X), _apply(outer, _apply(inner, X)), rtol=1e-12, atol=1e-12)


@given(maps())
def test_the_identity_is_neutral(affine):
    assert affine.after(identity(3)).equals(affine)
    assert identity(0).after(affine).equals(affine)
    assert identity(3).is_identity


@given(maps(), maps())
def test_maps_are_equal_if_their_arrays_are(one, other):
    whole = [np.broadcast_to(array, SHAPE) for array in (one.scale, one.shift, other.scale, other.shift)]
    assert one.equals(other) == (np.array_equal(whole[0], whole[2]) and np.array_equal(whole[1], whole[3]))
    assert one.equals(Affine(whole[0], whole[1]))


@given(maps())
def test_what_is_constant_along_an_axis_is_kept_once(affine):
    for axis, size in enumerate(affine.shape):
        if size > 1:
            assert any(np.ptp(array, axis=axis).any() for array in (affine.scale, affine.shift))


@pytest.mark.parametrize("gamma", [None, np.array([2.0, -3.0])])
@pytest.mark.parametrize("beta", [None, np.array([0.5, 7.0])])
def test_normalization(gamma, beta):
    mean, variance, x = np.array([1.0, -4.0]), np.array([4.0, 0.25]), np.array([3.0, 5.0])
    expected = (x - mean) / np.sqrt(variance + 0.1)
    expected = expected * (1 if gamma is None else gamma) + (0 if beta is None else beta)
    np.testing.assert_allclose(_apply(Affine(*map_from(mean, variance, 0.1, gamma, beta)), x), expected, rtol=1e-14)


def test_what_is_not_finite_shows():
    assert not np.isfinite(Affine(*map_from(np.zeros(2), np.array([1.0, -1.0]), 0.0, None, None)).greatest)
    assert not np.isfinite(Affine(*map_from(np.zeros(2), np.zeros(2), 0.0, None, None)).greatest)
