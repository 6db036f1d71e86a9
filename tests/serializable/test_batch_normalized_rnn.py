"""Batch-normalized recurrent layers against their definition, and against Keras's layers."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasbn.layers
from kerasbn.layers import BatchNormalizedRNN
from tests.helpers import random_inputs, randomize
from tests.serializable import recurrent_reference as reference

UNITS, FEATURES = 3, 4
RECURRENT = {
    "SimpleRNN": functools.partial(layers.SimpleRNN, UNITS),
    "LSTM": functools.partial(layers.LSTM, UNITS),
    "GRU": functools.partial(layers.GRU, UNITS, reset_after=False),
    "GRU, reset after": functools.partial(layers.GRU, UNITS),
}
FLAGS = {
    "last output": {},
    "sequences": {"return_sequences": True},
    "state": {"return_state": True, "return_sequences": True},
    "backwards": {"go_backwards": True, "return_sequences": True, "return_state": True},
    "unrolled": {"unroll": True, "return_state": True},
    "no bias": {"use_bias": False, "return_sequences": True},
    "zeros where masked": {"zero_output_for_mask": True, "return_sequences": True},
}
LENGTHS = np.array([6, 2, 0, 4])
MASK = np.arange(6) < LENGTHS[:, None]

PRECISION = 1e-6 if keras.backend.backend() == "tensorflow" else 1e-5  # JAX has no float64 unless it is told to

by_kind = pytest.mark.parametrize("kind", RECURRENT)
by_flags = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
masked = pytest.mark.parametrize("mask", [None, MASK], ids=["all steps", "masked"])


def sequences(batch=4, steps=6, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, steps, FEATURES)) * 2 + 1


def far(layer):
    """A layer of weights over decades, gamma of both signs, statistics far from fresh ones."""
    layer.build((4, 6, FEATURES))
    return randomize(layer)


def arrays(layer):
    """The reference's arguments."""
    norm, cell = layer.norms[0], layer.rnn_layer.cell
    found = {name: getattr(cell, name, None) for name in ("kernel", "recurrent_kernel", "bias")}
    found |= {"gamma": norm.gamma, "beta": norm.beta}
    missing = np.zeros(cell.kernel.shape[1])
    return {name: missing if each is None else np.asarray(each, "float64") for name, each in found.items()}


def expected_of(kind, layer, x, training, mask=None, state=None):
    """What the reference makes of the call of a layer: outputs as the flags say, and moments."""
    norm = layer.norms[0]
    weights = arrays(layer)
    if layer.rnn_layer.cell.bias is None:
        del weights["bias"]
    moments = None if training else [np.asarray(each, "float64") for each in (norm.moving_mean, norm.moving_variance)]
    outputs, states, moments = reference.recurrent(
        kind, x, **weights, moments=moments, mask=mask, backwards=layer.go_backwards, state=state
    )
    if layer.return_sequences and layer.zero_output_for_mask and mask is not None:
        outputs = np.where(mask[..., None], outputs, 0)
    first = outputs if layer.return_sequences else outputs[:, -1]
    return [first, *(states if layer.return_state else [])], moments


def assert_all_close(expected, got, tolerance=1e-6):
    for one, other in zip(keras.tree.flatten(expected), keras.tree.flatten(got), strict=True):
        one, other = (np.asarray(keras.ops.convert_to_numpy(each), "float64") for each in (one, other))
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, rtol=0, atol=tolerance * max(np.max(np.abs(one), initial=0), 1))


def statistics(layer):
    return [variable.numpy() for norm in layer.norms for variable in norm.non_trainable_variables]


# The definition


@by_kind
@by_flags
@masked
@pytest.mark.parametrize("training", [False, True])
def test_definition(kind, flags, mask, training):
    momentum = {"momentum": 0.0, "dtype": "float64"}
    made = RECURRENT[kind](**flags, dtype="float64")
    layer = far(BatchNormalizedRNN(made, kerasbn.layers.BatchNormalization(**momentum)))
    x = sequences()
    expected, moments = expected_of(kind, layer, x, training, mask)
    assert_all_close(expected, layer(x, training=training, mask=mask), PRECISION)
    assert_all_close(moments, [layer.norms[0].moving_mean, layer.norms[0].moving_variance], PRECISION)


@by_kind
@masked
@pytest.mark.parametrize("flags", [FLAGS["last output"], FLAGS["backwards"]], ids=["forwards", "backwards"])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.tensorflow)])
def test_gradients(kind, mask, flags, compiled):
    """Along a direction of each weight and of the inputs, by central differences."""
    layer = far(BatchNormalizedRNN(RECURRENT[kind](**flags, dtype="float64")))
    x, generator = sequences(), np.random.default_rng(5)
    weights = {"x": x, **arrays(layer)}

    def loss(values):
        given = {name: value for name, value in values.items() if name != "x"}
        outputs, _, _ = reference.recurrent(kind, values["x"], **given, mask=mask, backwards=layer.go_backwards)
        return np.sum(np.cos(outputs if layer.return_sequences else outputs[:, -1]))

    found = _gradients(layer, x, mask, compiled)
    got = dict(zip(["x", *(variable.name for variable in layer.trainable_variables)], found, strict=True))
    assert {"x", "kernel", "recurrent_kernel", "bias", "gamma"} == got.keys()
    for name, gradient in got.items():
        direction = generator.normal(size=weights[name].shape)
        ahead, behind = (loss({**weights, name: weights[name] + sign * 1e-5 * direction}) for sign in (1, -1))
        np.testing.assert_allclose(
            np.sum(gradient * direction), (ahead - behind) / 2e-5, rtol=10 * PRECISION, atol=PRECISION
        )


def _gradients(layer, x, mask, compiled):
    if keras.backend.backend() == "jax":
        import jax

        def loss_of(x, weights):
            states = [variable.value for variable in layer.non_trainable_variables]
            outputs, _ = layer.stateless_call(weights, states, x, training=True, mask=mask)
            return keras.ops.sum(keras.ops.cos(keras.tree.flatten(outputs)[0]))

        layer(x, mask=mask)
        weights = [variable.value for variable in layer.trainable_variables]
        of_inputs, of_weights = jax.grad(loss_of, argnums=(0, 1))(keras.ops.convert_to_tensor(x), weights)
        return [of_inputs, *of_weights]

    @tf.function(jit_compile=compiled)
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = keras.tree.flatten(layer(x, training=True, mask=mask))[0]
            total = tf.reduce_sum(tf.cos(outputs))
        return tape.gradient(total, [x, *(variable.value for variable in layer.trainable_variables)])

    return gradients(x)


@by_kind
def test_initial_state(kind):
    layer = far(BatchNormalizedRNN(RECURRENT[kind](return_state=True, dtype="float64")))
    state = [np.full((4, UNITS), 0.3 - number) for number in range(reference.STEPS[kind][1])]
    mask = np.arange(6) < np.array([6, 2, 1, 4])[:, None]  # what an empty sequence yields depends on the backend
    expected, _ = expected_of(kind, layer, sequences(), False, mask, state)
    assert_all_close(expected, layer(sequences(), initial_state=state, mask=mask), PRECISION)


# Padding


@by_kind
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("ghosts", [None, 2])
def test_padding_changes_nothing(kind, backwards, ghosts):
    norm = kerasbn.layers.BatchNormalization(virtual_batch_size=ghosts)
    source = BatchNormalizedRNN(RECURRENT[kind](go_backwards=backwards, return_state=True), norm)
    plain, padded = far(source), far(BatchNormalizedRNN.from_config(source.get_config()))
    x = sequences()
    filled = np.concatenate([x, np.full((4, 5, FEATURES), 1e3)], axis=1)
    assert_all_close(
        plain(x, training=True), padded(filled, training=True, mask=np.arange(11) < np.full((4, 1), 6)), 1e-5
    )
    assert_all_close(statistics(plain), statistics(padded), 1e-5)


@by_kind
@pytest.mark.tensorflow
def test_batch_that_is_masked_altogether(kind):
    layer = far(BatchNormalizedRNN(RECURRENT[kind](return_sequences=True)))
    before = statistics(layer)
    with tf.GradientTape() as tape:
        outputs = layer(sequences(), training=True, mask=np.zeros((4, 6), bool))
        loss = tf.reduce_sum(outputs)
    assert not np.any(outputs)
    assert all(np.array_equal(one, other) for one, other in zip(before, statistics(layer), strict=True))
    gradients = tape.gradient(loss, [variable.value for variable in layer.trainable_variables])
    assert not any(np.any(gradient) for gradient in gradients if gradient is not None)


def test_masks_of_layers_ahead():
    inputs = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(5, FEATURES, mask_zero=True)(inputs)
    sequence = BatchNormalizedRNN(layers.LSTM(UNITS, return_sequences=True))(embedded)
    model = randomize(keras.Model(inputs, BatchNormalizedRNN(layers.GRU(UNITS))(sequence)))
    short, padded = np.array([[1, 2, 3]]), np.array([[1, 2, 3, 0, 0]])
    assert_all_close(model(short, training=True), model(padded, training=True), 1e-5)


# What Keras computes


def beside_keras(make, **arguments):
    """A layer of Keras's, and the like normalized by what changes nothing, of the same weights."""
    norm = kerasbn.layers.BatchNormalization(epsilon=1e-12, trainable=False, center=False)
    theirs, ours = make(**arguments), BatchNormalizedRNN(make(**arguments), norm)
    for layer in (theirs, ours):
        layer.build((4, 6, FEATURES))
    randomize(theirs)
    for one, other in zip(theirs.weights, ours.weights, strict=False):
        other.assign(one)
    return theirs, ours


STACKS = {
    "one cell": lambda **k: layers.RNN(layers.LSTMCell(UNITS, **k.pop("cell", {})), **k),
    "stack": lambda **k: layers.RNN(
        [kind(units, **k.get("cell", {})) for kind, units in ((layers.GRUCell, 5), (layers.LSTMCell, 3))],
        **{name: value for name, value in k.items() if name != "cell"},
    ),
}
ALL = {**RECURRENT, **STACKS}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "dropout",
    [{"dropout": 0.5}, {"recurrent_dropout": 0.5}, {"dropout": 0.3, "recurrent_dropout": 0.3}],
    ids=["inputs", "states", "both"],
)
def test_dropout(kind, dropout):
    arguments = {**dropout, "seed": 3}
    arguments = {"cell": arguments} if kind in STACKS else arguments
    theirs, ours = beside_keras(ALL[kind], **arguments, return_sequences=True)
    x = sequences().astype("float32")
    expected = theirs(x, training=True, mask=MASK)
    assert np.max(np.abs(expected - theirs(x, mask=MASK))) > 0.01
    assert_all_close(expected, ours(x, training=True, mask=MASK), 1e-5)


@pytest.mark.parametrize("kind", STACKS)
@by_flags
@masked
def test_cells(kind, flags, mask):
    cell = {name: value for name, value in flags.items() if name == "use_bias"}
    theirs, ours = beside_keras(STACKS[kind], cell=cell, **{name: flags[name] for name in flags.keys() - cell})
    x = sequences().astype("float32")
    assert_all_close(theirs(x, mask=mask), ours(x, mask=mask), 1e-5)
    shapes = [layer.compute_output_shape((4, 6, FEATURES)) for layer in (theirs, ours)]
    assert shapes[0] == shapes[1]


@masked
def test_stack_is_normalized_as_layers_one_after_another(mask):
    stack = far(BatchNormalizedRNN(STACKS["stack"]()))
    x = sequences()
    one = BatchNormalizedRNN(layers.GRU(5, return_sequences=True))
    two = BatchNormalizedRNN(layers.LSTM(3))
    for layer, cell, norm, features in zip((one, two), stack.cell.cells, stack.norms, (FEATURES, 5), strict=True):
        layer.build((4, 6, features))
        for variable, value in zip(layer.weights, [*cell.weights, *norm.weights], strict=True):
            variable.assign(value)
    for _ in range(2):
        expected = two(one(x, training=True, mask=mask), training=True, mask=mask)
        assert_all_close(expected, stack(x, training=True, mask=mask), 1e-5)
    assert_all_close([*statistics(one), *statistics(two)], statistics(stack), 1e-5)


@by_kind
@pytest.mark.parametrize("merge", ["concat", "sum", None])
def test_bidirectional(kind, merge):
    wrapped = layers.Bidirectional(BatchNormalizedRNN(RECURRENT[kind](return_sequences=True)), merge_mode=merge)
    wrapped.build((4, 6, FEATURES))
    randomize(wrapped)
    forward, backward = wrapped.forward_layer, wrapped.backward_layer
    assert (forward.go_backwards, backward.go_backwards) == (False, True)
    assert forward.zero_output_for_mask
    assert backward.zero_output_for_mask
    there, back = (layer(sequences(), mask=MASK) for layer in (forward, backward))
    back = np.flip(back, axis=1)
    expected = {"concat": np.concatenate([there, back], -1), "sum": there + back, None: [there, back]}
    assert_all_close(expected[merge], wrapped(sequences(), mask=MASK))


@by_kind
def test_stateful(kind):
    x = sequences()
    layer = far(BatchNormalizedRNN(RECURRENT[kind](stateful=True)))
    whole = layer(x)
    layer.reset_state()
    layer(x[:, :4])
    assert_all_close(whole, layer(x[:, 4:]), 1e-5)


@by_kind
def test_regularizers(kind):
    regularizers = ("kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "activity_regularizer")
    theirs, ours = beside_keras(RECURRENT[kind], **dict.fromkeys(regularizers, "l2"))
    for layer in (theirs, ours):
        layer(sequences())
    assert len(theirs.losses) == len(ours.losses)
    np.testing.assert_allclose(sum(ours.losses), sum(theirs.losses), rtol=1e-5)


# Models


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("compiled", [False, True])
def test_trains(kind, compiled):
    model = keras.Sequential([keras.Input((None, FEATURES)), BatchNormalizedRNN(ALL[kind](return_sequences=True))])
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=compiled)
    x = sequences(steps=6).astype("float32")
    y = np.zeros((4, 6, UNITS))
    first, *_, last = (model.train_on_batch(x, y) for _ in range(4))
    assert last < first
    assert_all_close(model(x), model.predict(x, verbose=0), 1e-5)


def test_all_steps_are_gone_along_where_a_batch_is_smaller_than_they_are_many():
    inputs = keras.Input(batch_shape=(2, None, FEATURES))
    model = randomize(keras.Model(inputs, BatchNormalizedRNN(layers.GRU(UNITS))(inputs)))
    x = sequences(batch=2).astype("float32")
    assert_all_close(model.layers[-1](x), model.predict(x, verbose=0), 1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ALL)
def test_mixed_precision(policy, kind):
    full = far(BatchNormalizedRNN(ALL[kind](return_sequences=True)))
    keras.config.set_dtype_policy(policy)
    try:
        half = far(BatchNormalizedRNN(ALL[kind](return_sequences=True)))
    finally:
        keras.config.set_dtype_policy("float32")
    assert {variable.dtype for variable in half.weights} == {"float32"}
    outputs = half(sequences(), training=True)
    assert outputs.dtype == policy.removeprefix("mixed_")
    assert_all_close(full(sequences(), training=True), outputs, 0.1)
    assert_all_close(statistics(full), statistics(half), 0.02)


def test_frozen():
    layer = far(BatchNormalizedRNN(layers.LSTM(UNITS, trainable=False)))
    assert not layer.trainable_variables
    assert_all_close(layer(sequences()), layer(sequences(), training=True))


# Files


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "bidirectional"])
def test_comes_back(kind, wrapped, tmp_path):
    norm = kerasbn.layers.BatchNormalization(momentum=0.7, gamma_initializer=keras.initializers.Constant(0.1))
    layer = BatchNormalizedRNN(ALL[kind](return_sequences=True, return_state=not wrapped), norm, name="normalized")
    inputs = keras.Input((None, FEATURES))
    model = randomize(keras.Model(inputs, layers.Bidirectional(layer)(inputs) if wrapped else layer(inputs)))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    x = random_inputs(model)
    twin = keras.models.clone_model(model)
    twin.load_weights(tmp_path / "model.weights.h5")
    for other in (keras.models.load_model(tmp_path / "model.keras"), twin):
        assert_all_close(model(x), other(x), 1e-6)
        found = other.layers[-1].forward_layer if wrapped else other.layers[-1]
        assert [each.momentum for each in found.norms] == [0.7] * len(found.norms)
        assert type(found.rnn_layer) is type(layer.rnn_layer)
    model.summary(print_fn=lambda text: None, expand_nested=True)
    assert model.count_params() == sum(np.prod(weight.shape) for weight in model.weights)


def test_weights_have_the_names_and_shapes_of_the_wrapped_layer():
    for make in ALL.values():
        stock, ours = make(), BatchNormalizedRNN(make())
        for layer in (stock, ours):
            layer.build((4, 6, FEATURES))
        theirs = [(weight.name, weight.shape) for weight in stock.weights]
        assert [(weight.name, weight.shape) for weight in ours.weights][: len(theirs)] == theirs


def test_default_normalization():
    with_bias, without = (BatchNormalizedRNN(layers.LSTM(2, use_bias=use)).norms[0] for use in (True, False))
    assert type(with_bias) is kerasbn.layers.BatchNormalization
    assert (with_bias.momentum, with_bias.zero_debias, with_bias.center, without.center) == (0.95, True, False, True)


# Refusals


class Cell(layers.LSTMCell):
    pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: [layers.ConvLSTM1D(2, 3)], "must be a keras.layers.LSTM"),
        (lambda: [layers.Dense(2)], "must be a keras.layers.LSTM"),
        (lambda: [layers.Bidirectional(layers.GRU(2))], "put the BatchNormalizedRNN inside"),
        (lambda: [BatchNormalizedRNN(layers.GRU(2))], "must be a keras.layers.LSTM"),
        (lambda: [layers.RNN(Cell(2))], "Received: a Cell"),
        (lambda: [layers.RNN([layers.GRUCell(2), Cell(2)])], "Received: a Cell"),
        (lambda: [layers.LSTM(2), layers.LayerNormalization()], "must be a batch normalization"),
        (lambda: [layers.LSTM(2), layers.BatchNormalization(axis=1)], "must be a batch normalization"),
        (lambda: [layers.LSTM(2), [layers.BatchNormalization()] * 2], "one normalization for each cell"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchNormalizedRNN(*arguments())


def test_quantizing_a_model_leaves_it_as_it_is():
    wrapped = layers.Bidirectional(BatchNormalizedRNN(layers.LSTM(2, return_sequences=True)))
    network = [keras.Input((None, FEATURES)), wrapped, BatchNormalizedRNN(STACKS["stack"]()), layers.Dense(2)]
    model = randomize(keras.Sequential(network))
    x = sequences().astype("float32")
    before = [layer.get_weights() for layer in model.layers]
    expected = model.layers[1](model.layers[0](x))
    with pytest.warns(UserWarning, match="Layer LSTMCell does not have a `quantize` method"):
        model.quantize("int8")
    assert_all_close(expected, model.layers[1](model.layers[0](x)), 0)
    assert_all_close(before[:2], [layer.get_weights() for layer in model.layers[:2]], 0)
    quantized = [layer.name for layer in model._flatten_layers() if layer.dtype_policy.quantization_mode]
    assert quantized == [model.layers[-1].name]
    assert_all_close(model(x), kerasbn.fold(model)(x), 1e-5)


def test_quantization_is_refused():
    layer = far(BatchNormalizedRNN(layers.LSTM(2)))
    with pytest.raises(NotImplementedError, match="cannot be quantized"):
        layer.quantize("int8")
