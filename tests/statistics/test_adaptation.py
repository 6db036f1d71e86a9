"""The statistics of another domain for a while."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from tests.helpers import inference, randomize

DATA = np.random.default_rng(0).normal(2, 3, (40, 6)).astype("float32")


def _model():
    chain = [
        L.Dense(5),
        kerasbn.layers.BatchNormalization(name="a", renorm=True, accumulate=3),
        L.ReLU(),
        L.Dense(4),
        L.BatchNormalization(name="b", trainable=False),
    ]
    return randomize(keras.Sequential([keras.Input((6,)), *chain, L.Dense(2)]))


def _values(model):
    return [variable.numpy().tobytes() for variable in model.variables]


@pytest.mark.parametrize("options", [{}, {"layers": "b"}, {"blend": 0.5}], ids=str)
def test_inside_it_is_calibrated_and_afterwards_as_before(options):
    model, calibrated = _model(), _model()
    kerasbn.calibrate(calibrated, DATA, frozen=True, **options)
    before = _values(model)
    with kerasbn.adapted(model, DATA, **options) as inside:
        assert inside is model
        assert _values(model) == _values(calibrated) != before
        np.testing.assert_array_equal(inference(model, DATA), inference(calibrated, DATA))
    assert _values(model) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_it_is_as_before_after_an_error_inside(error):
    model = _model()
    before = _values(model)
    with pytest.raises(error), kerasbn.adapted(model, DATA):
        raise error
    assert _values(model) == before


def test_statistics_that_are_changed_inside_go_too():
    model = _model()
    before = _values(model)
    with kerasbn.adapted(model, DATA), kerasbn.adapted(model, DATA + 1):
        kerasbn.calibrate(model, DATA * 2, frozen=True)
    assert _values(model) == before


def test_it_undoes_a_shift_of_the_inputs():
    """Scales and shifts of what a first normalization gets are undone exactly."""
    model = randomize(
        keras.Sequential([keras.Input((6,)), L.BatchNormalization(scale=False), L.Dense(3, "relu"), L.Dense(2)])
    )
    kerasbn.calibrate(model, DATA)
    expected = inference(model, DATA)
    with kerasbn.adapted(model, 100 * DATA - 7):
        np.testing.assert_allclose(inference(model, 100 * DATA - 7), expected, rtol=1e-3, atol=1e-3)
