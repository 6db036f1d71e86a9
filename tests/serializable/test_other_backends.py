"""What runs on another backend than TensorFlow, in a process of its own; `make test-jax` runs most tests so."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasbn.serializable._kernels import plain
from tests.serializable import reference

pytestmark = pytest.mark.tensorflow  # once is enough: each of them says what it runs on

_CODE = """
import sys
import numpy as np
import keras
from kerasbn.layers import BatchNormalization
from tests.serializable import reference

assert keras.backend.backend() != "tensorflow"
x = np.random.default_rng(0).normal(2, 3, size=(5, 4, 3))
mask = np.arange(4) < np.array([4, 1, 2, 3, 4])[:, None]
weights = np.array([1.5, -0.5, 2.0]), np.array([0.1, -1.0, 3.0])
for axis, group, masked in ((2, None, False), (2, 2, False), (2, None, True), (2, 2, True)):
    layer = BatchNormalization(axis=axis, virtual_batch_size=group, momentum=None)
    layer.build(x.shape)
    layer.gamma.assign(weights[0])
    layer.beta.assign(weights[1])
    given = mask if masked else None
    expected, found = reference.batch_normalization(x, *weights, axis, mask=given, group=group)
    np.testing.assert_allclose(layer(x, training=True, mask=given), expected, rtol=1e-5, atol=1e-5)
    counts = [count for _, _, count in found]
    np.testing.assert_allclose(layer.moving_mean, np.average([mean for mean, _, _ in found], 0, counts), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, np.average([each for _, each, _ in found], 0, counts), rtol=1e-5)
    layer(np.full_like(x, np.inf), training=True)
    assert np.all(np.asarray(layer.seen_batches) == 1)
    parts = BatchNormalization(axis=axis, virtual_batch_size=group, momentum=None, accumulate=2)
    for batch in (slice(0, 2), slice(2, 5)):
        parts(x[batch], training=True, mask=None if given is None else given[batch])
    np.testing.assert_allclose(parts.moving_mean, layer.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(parts.moving_variance, layer.moving_variance, rtol=1e-5)
    scale = weights[0] / np.sqrt(np.asarray(layer.moving_variance) + layer.epsilon)
    np.testing.assert_allclose(layer(x), (x - np.asarray(layer.moving_mean)) * scale + weights[1], rtol=1e-5, atol=1e-5)
"""

_RECURRENT_CODE = """
import numpy as np
import keras
from kerasbn.layers import BatchNormalizedRNN
from tests.serializable import recurrent_reference as reference

layers = keras.layers
x = np.random.default_rng(0).normal(1, 2, size=(4, 6, 5))
mask = np.arange(6) < np.array([6, 2, 0, 4])[:, None]
arguments = {"return_sequences": True, "zero_output_for_mask": True}
for kind, layer in (
    ("SimpleRNN", layers.SimpleRNN(3, **arguments)),
    ("LSTM", layers.LSTM(3, **arguments)),
    ("GRU", layers.GRU(3, **arguments, reset_after=False)),
    ("GRU, reset after", layers.GRU(3, **arguments)),
):
    ours = BatchNormalizedRNN(layer)
    outputs = np.asarray(keras.ops.convert_to_numpy(ours(x, training=True, mask=mask)))
    gamma, mean, variance, _ = (keras.ops.convert_to_numpy(weight) for weight in ours.norms[0].weights)
    weights = [keras.ops.convert_to_numpy(weight) for weight in (layer.cell.kernel, layer.cell.recurrent_kernel)]
    bias = keras.ops.convert_to_numpy(layer.cell.bias)
    expected, _, moments = reference.recurrent(kind, x, *weights, gamma, 0 * gamma, bias, mask=mask)
    np.testing.assert_allclose(outputs, np.where(mask[..., None], expected, 0), atol=1e-5)
    np.testing.assert_allclose([mean, variance], moments, rtol=1e-4, atol=1e-5)
if keras.backend.backend() != "numpy":
    stack = layers.RNN([layers.GRUCell(4, dropout=0.5), layers.LSTMCell(3, recurrent_dropout=0.5)])
    model = keras.Sequential([layers.Bidirectional(BatchNormalizedRNN(stack))])
    model.compile("adam", "mse")
    losses = model.fit(x, np.zeros((4, 6)), epochs=2, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    assert np.any(keras.ops.convert_to_numpy(model.layers[0].forward_layer.norms[1].moving_mean))
"""


@pytest.mark.parametrize("code", [_CODE, _RECURRENT_CODE], ids=["layer", "recurrent"])
def test_numpy(code):
    _run(code, "numpy")


def test_recurrent_layers_under_jax():
    _run(_RECURRENT_CODE, "jax")


_WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # as if it were not installed
import keras
import numpy as np
import kerasbn
from tests.helpers import assert_same_function, names, sequential

assert keras.backend.backend() == "jax"
L = keras.layers
hidden = L.Dense(8, activation="relu", name="a"), L.Dropout(0.5), L.Dense(6), L.BatchNormalization(), L.ReLU()
source = sequential(*hidden)
x, y = np.random.default_rng(0).normal(size=(40, 12)), np.zeros(40)
source.compile("sgd", "sparse_categorical_crossentropy")
model = kerasbn.rewrite(source, data=x)
assert "a_bn" in names(model)
assert_same_function(source, model)
kerasbn.find_learning_rate(model, (x, y), steps=12)
model.fit(x, y, verbose=0)
kerasbn.calibrate(model, x)
assert_same_function(model, kerasbn.fold(model))
assert_same_function(model, kerasbn.layers.to_keras(model))
kerasbn.variance_shift(model, x)
"""


def test_tensorflow_is_not_needed_under_jax():
    _run(_WITHOUT_TENSORFLOW, "jax")


def _run(code, backend):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mask", [None, [True, False, True, True, True]])
@pytest.mark.parametrize("group", [None, 2])
@pytest.mark.parametrize(("shape", "axis"), [((5, 3), 1), ((5, 3, 8), 1), ((5, 2, 2, 3), 3)], ids=str)
def test_form_without_a_gradient_of_its_own(shape, axis, group, mask):
    """What runs there runs on TensorFlow too, which then derives the gradient as other backends do."""
    generator = np.random.default_rng(0)
    x, dy, gamma, beta = (generator.normal(size=size) for size in (shape, shape, 3, 3))
    arguments = {"axis": axis, "mask": mask, "group": group}
    expected, _ = reference.batch_normalization(x, gamma, beta, **arguments)
    given = [tf.constant(each, "float64") for each in (x, gamma, beta)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        outputs = plain.normalize(*given, 1e-3, axis, mask if mask is None else np.array(mask), group).outputs
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    exact = reference.gradients(x, gamma, beta, dy, **arguments)
    for one, other in zip(exact, tape.gradient(outputs, given, output_gradients=dy), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * np.max(np.abs(one)))
