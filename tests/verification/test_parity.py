"""How far a written model may be from the Keras model."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasbn import VerificationError
from kerasbn.verification.interface import interface_of
from kerasbn.verification.parity import check_parity
from kerasbn.verification.samples import Sample, exact_reference, reference

pytestmark = pytest.mark.tensorflow


class Summing(layers.Layer):
    """A sum in which float32 cancels out: of the numbers and 1e4, less as many times 1e4."""

    def call(self, x):
        wide = x + keras.ops.cast(1e4, x.dtype)
        return keras.ops.sum(wide, -1, keepdims=True) - 1e4 * x.shape[-1]


class Narrow(layers.Layer):
    """A layer that computes in float32 whatever its policy says."""

    def call(self, x):
        return keras.ops.matmul(keras.ops.cast(x, "float32"), np.ones((6, 2), "float32"))


def _model(layer, width=6):
    inputs = keras.Input((width,), name="x")
    return keras.Model(inputs, {"y": layer(inputs)})


def _sample(model, width=6):
    interface = interface_of(model)
    inputs = {"x": np.random.default_rng(0).normal(size=(3, width)).astype("float32")}
    return interface, Sample(inputs, reference(model, interface, inputs))


# By how much an output is off, relative to the greatest one, and whether that passes.
OFF = {"nothing": (0, True), "half": (0.5e-4, True), "twice": (2e-4, False), "far": (1.0, False)}


@pytest.mark.parametrize("layer", [layers.Dense(2), Narrow()], ids=["dense", "of its own type"])
@pytest.mark.parametrize("case", OFF)
def test_tolerance(case, layer):
    off, passes = OFF[case]
    model = _model(layer)
    interface, sample = _sample(model)
    by = off * np.abs(sample.expected["y"]).max()

    def candidate(inputs):
        return {"y": sample.expected["y"] + by * np.eye(3, 2, dtype="float32")}

    if passes:
        error = check_parity(model, interface, candidate, "it", [sample])
        np.testing.assert_allclose(error, off, rtol=1e-2)
        return
    with pytest.raises(VerificationError, match="Output 'y' of it differs"):
        check_parity(model, interface, candidate, "it", [sample])


def test_what_keras_rounds_away_itself_is_no_fault_of_the_file():
    """A file that is nearer to the truth than Keras is passes; one that is as far from Keras elsewhere does not."""
    model = _model(Summing(), width=4096)
    interface, sample = _sample(model, width=4096)
    exact = exact_reference(model, interface, sample.inputs)["y"]
    expected = sample.expected["y"]
    noise = np.abs(exact - expected).max()
    assert noise > 1e-3 * np.abs(expected).max()
    assert check_parity(model, interface, lambda inputs: {"y": exact}, "it", [sample]) > 1e-4
    with pytest.raises(VerificationError):
        check_parity(model, interface, lambda inputs: {"y": expected + 40 * noise}, "it", [sample])


def test_where_numbers_are_not_finite_both_are_not():
    model = _model(layers.Lambda(keras.ops.log))
    interface, sample = _sample(model)
    assert not np.isfinite(sample.expected["y"]).all()
    assert check_parity(model, interface, lambda inputs: sample.expected, "it", [sample]) == 0
    with pytest.raises(VerificationError):
        check_parity(model, interface, lambda inputs: {"y": np.nan_to_num(sample.expected["y"])}, "it", [sample])


def test_strings_are_compared_too():
    inputs = keras.Input((1,), dtype="int64", name="x")
    model = keras.Model(inputs, {"y": layers.StringLookup(vocabulary=["a", "b"], invert=True)(inputs)})
    interface = interface_of(model)
    words = {"y": np.array([[b"a"], [b"b"]], object)}
    sample = Sample({"x": np.array([[1], [2]])}, words)
    assert check_parity(model, interface, lambda inputs: words, "it", [sample]) == 0
    with pytest.raises(VerificationError):
        check_parity(model, interface, lambda inputs: {"y": words["y"][::-1]}, "it", [sample])


# The weights of the layer `hidden`, the function behind, and what the message names; `None` where it passes.
NUMBERS = {
    "weights that are none": (np.nan, "linear", "Layer 'hidden' has a kernel"),
    "infinite weights": (np.inf, "linear", "Layer 'hidden' has a kernel"),
    "infinite weights without effect": (np.inf, "relu6", None),
    "no number from numbers": (1.0, lambda x: keras.ops.log(-keras.ops.square(x) - 1), "is not finite on any"),
    "some numbers": (1.0, keras.ops.log, None),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_what_is_no_number_is_not_verified(case):
    """Whatever agrees that there is none would pass."""
    value, function, message = NUMBERS[case]
    model = _model(layers.Dense(2, function, name="hidden"))
    model.set_weights([np.full((6, 2), value), np.zeros(2)])
    interface, sample = _sample(model)

    def check():
        check_parity(model, interface, lambda inputs: reference(model, interface, inputs), "it", [sample])

    if message is None:
        check()
        return
    with pytest.raises(VerificationError, match=message):
        check()
