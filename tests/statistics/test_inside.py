"""Batch normalizations inside of layers, recurrent ones above all, are seen by all that looks at statistics."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import _keras
from kerasbn.arrays import array_of
from kerasbn.layers import BatchNormalizedRNN
from kerasbn.serializable.batch_normalized_rnn import cells_of
from kerasbn.statistics.measured import start_from_measured
from kerasbn.statistics.percentiles import Watch, input_percentiles
from tests.helpers import assert_same_function, randomize, snapshot
from tests.serializable import recurrent_reference as reference

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(1, 2, (40, 4, 5)).astype("float32")
MASK = np.arange(4) < GENERATOR.integers(0, 5, (40, 1))
PADDED = np.where(MASK[..., None], X, 0)
NO_BETA = {"center": False}

RECURRENT = {
    "SimpleRNN, no bias": functools.partial(L.SimpleRNN, 4, use_bias=False),
    "LSTM": functools.partial(L.LSTM, 4),
    "GRU": functools.partial(L.GRU, 4, reset_after=False),
    "GRU, reset after": functools.partial(L.GRU, 4),
    "backwards": functools.partial(L.LSTM, 4, go_backwards=True),
    "unrolled": functools.partial(L.GRU, 4, unroll=True),
    "dropped": functools.partial(L.LSTM, 4, dropout=0.5, recurrent_dropout=0.3),
    "stack": lambda **k: L.RNN([L.GRUCell(3), L.SimpleRNNCell(4, use_bias=False), L.LSTMCell(2)], **k),
    "stack, backwards": lambda **k: L.RNN([L.GRUCell(3, reset_after=False), L.LSTMCell(2)], go_backwards=True, **k),
}
masked = pytest.mark.parametrize("data", [X, PADDED], ids=["all steps", "masked"])
by_kind = pytest.mark.parametrize("kind", RECURRENT)


def normalized(kind, norm=None, **kwargs):
    return BatchNormalizedRNN(RECURRENT[kind](return_sequences=True, **kwargs), norm, name="rnn")


def sequential(*layers, **kwargs):
    """A model of random weights of layers behind a mask."""
    given = keras.Input(**{"shape": (4, 5), **kwargs})
    return randomize(keras.Sequential([given, L.Masking(name="mask"), *layers]))


def kind_of(cell):
    return {L.SimpleRNNCell: "SimpleRNN", L.LSTMCell: "LSTM"}.get(type(cell)) or (
        "GRU, reset after" if cell.reset_after else "GRU"
    )


def computed(layer, x, mask=None, state=None, by_batch=False):
    """What the definition makes of a normalized layer's call: moments of the input product of each cell, and outputs.

    Args:
        by_batch: Whether each cell is normalized by the moments of this batch, not by those of its population.
    """
    x, mask = np.asarray(x, "float64"), np.ones(x.shape[:2], bool) if mask is None else mask
    if layer.go_backwards:
        x, mask = np.flip(x, 1), np.flip(mask, 1)
    moments = []
    for cell, norm in zip(cells_of(layer), layer.norms, strict=True):
        missing = np.zeros(cell.kernel.shape[-1])
        found = (cell.kernel, cell.recurrent_kernel, norm.gamma, norm.beta, cell.bias)
        weights = [missing if each is None else array_of(each) for each in found]
        products = (x @ weights[0])[mask]
        moments.append((products.mean(0), products.var(0, ddof=1)))
        given = None if by_batch else moments[-1]
        x, _, _ = reference.recurrent(kind_of(cell), x, *weights, moments=given, mask=mask, state=state)
    return moments, x


def assert_moments(norms, moments, rtol=1e-4):
    assert len(norms) == len(moments)
    for norm, (mean, variance) in zip(norms, moments, strict=True):
        scale = np.sqrt(variance.max())
        np.testing.assert_allclose(norm.moving_mean, mean, rtol=rtol, atol=1e-5 * scale)
        np.testing.assert_allclose(norm.moving_variance, variance, rtol=rtol, atol=1e-5 * scale**2)


def mask_of(data):
    return np.any(data, -1)


def left_alone(model):
    return not any("call" in vars(layer) for layer in model._flatten_layers())


# kerasbn.calibrate


@by_kind
@masked
def test_calibrated(kind, data):
    model = sequential(layer := normalized(kind))
    statistics = [variable for norm in layer.norms for variable in (norm.moving_mean, norm.moving_variance)]
    others = [variable for variable in model.variables if all(variable is not each for each in statistics)]
    before = [variable.numpy() for variable in others]
    kerasbn.calibrate(model, data)
    assert_moments(layer.norms, computed(layer, data, mask_of(data))[0])
    assert all(np.array_equal(variable, value) for variable, value in zip(others, before, strict=True))
    assert left_alone(model)


@pytest.mark.parametrize("kind", ["GRU", "stack"])
@masked
def test_calibrated_in_both_directions(kind, data):
    both = L.Bidirectional(normalized(kind), name="both")
    model = sequential(both)
    kerasbn.calibrate(model, data)
    for layer in (both.forward_layer, both.backward_layer):
        assert_moments(layer.norms, computed(layer, data, mask_of(data))[0])
    assert not np.allclose(both.forward_layer.norms[0].moving_mean, both.backward_layer.norms[0].moving_mean)


@masked
def test_calibrated_one_behind_another_from_a_given_state(data):
    x, state = keras.Input((4, 5)), keras.Input((4,))
    first, second = normalized("GRU, reset after"), BatchNormalizedRNN(L.LSTM(3))
    counting = keras.ops.any(keras.ops.not_equal(x, 0), axis=-1)
    outputs = first(L.Masking()(x), initial_state=[state], mask=counting)  # Keras finds no mask where there is a state
    model = randomize(keras.Model([x, state], second(outputs)))
    given = GENERATOR.normal(size=(40, 4)).astype("float32")
    kerasbn.calibrate(model, [data, given])
    moments, outputs = computed(first, data, mask_of(data), state=[given])
    assert_moments(first.norms, moments)
    assert_moments(second.norms, computed(second, outputs, mask_of(data))[0])


def test_calibrated_from_the_state_that_is_kept():
    layer = BatchNormalizedRNN(L.RNN([L.GRUCell(3), L.LSTMCell(2)], stateful=True))
    model = sequential(layer, batch_shape=(40, 4, 5), shape=None)
    before = [state.numpy() for state in keras.tree.flatten(layer.states)]
    kerasbn.calibrate(model, X)
    assert_moments(layer.norms, computed(layer, X)[0])
    for state, value in zip(keras.tree.flatten(layer.states), before, strict=True):
        np.testing.assert_array_equal(state, value)


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, L.Dense(2)

    def call(self, x, training=None):
        return self.head(self.layer(x, training=training))


class Holder(L.Layer):
    """A layer of a user's own around another one, and Dropout ahead of it."""

    def __init__(self, layer, rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.drop, self.layer = L.Dropout(rate, name="drop"), layer
        self.supports_masking = True

    def get_config(self):
        return {}

    def call(self, x, training=None):
        return self.layer(self.drop(x, training=training), training=training)


def _subclassed(layer):
    model = Subclassed(layer)
    model(X[:2])
    return randomize(model)


PLACES = {
    "subclassed model": _subclassed,
    "custom layer": lambda layer: sequential(Holder(layer, name="holder")),
    "model inside": lambda layer: sequential(keras.Sequential([keras.Input((4, 5)), layer], name="inner")),
    "compiled": lambda layer: sequential(layer),
}


@pytest.mark.parametrize("place", PLACES)
def test_calibrated_wherever_it_is(place):
    model = PLACES[place](layer := normalized("LSTM" if place == "compiled" else "stack"))
    if place == "compiled":
        model.compile("sgd", "mse", jit_compile=True)
        model.fit(X, np.zeros((40, 4, 4)), verbose=0)
    kerasbn.calibrate(model, X)
    assert_moments(layer.norms, computed(layer, X)[0])


def test_calibrated_on_every_step():
    layer = BatchNormalizedRNN(L.LSTM(4))
    model = randomize(keras.Sequential([keras.Input((None, 4, 5)), L.TimeDistributed(layer)]))
    data = X.reshape(20, 2, 4, 5)
    kerasbn.calibrate(model, data)
    assert_moments(layer.norms, computed(layer, X)[0])


# kerasbn.variance_shift

MANY = np.random.default_rng(3).normal(1, 1, (2000, 3, 4)).astype("float32")
MANY[:, 2] = 0


def shift_of(products_of, x, rate):
    """How much Dropout on x adds to the variance of x W, on average: Var(x W) + rate / (1 - rate) E(x^2) W^2."""
    kernel = array_of(products_of.kernel)
    variance = (x @ kernel).var((0, 1))
    return np.mean(1 + rate / (1 - rate) * (np.mean(x**2, (0, 1)) @ kernel**2) / variance)


AHEAD = {
    "an LSTM's own": lambda: [BatchNormalizedRNN(L.LSTM(4, dropout=0.5))],
    "a GRU's own": lambda: [BatchNormalizedRNN(L.GRU(4, dropout=0.5))],
    "a SimpleRNN's own": lambda: [BatchNormalizedRNN(L.SimpleRNN(4, dropout=0.5))],
    "of a layer ahead": lambda: [L.Dropout(0.5), BatchNormalizedRNN(L.LSTM(4))],
    "of a cell": lambda: [BatchNormalizedRNN(L.RNN(L.LSTMCell(4, dropout=0.5)))],
    "in a custom layer": lambda: [Holder(BatchNormalizedRNN(L.GRU(4)), 0.5, name="holder")],
    "in both directions": lambda: [L.Bidirectional(BatchNormalizedRNN(L.SimpleRNN(4, dropout=0.5)))],
}


@pytest.mark.parametrize("case", AHEAD)
def test_dropout_adds_variance(case):
    model = sequential(*AHEAD[case](), shape=(3, 4))
    before = snapshot(model)
    shift = kerasbn.variance_shift(model, MANY)
    assert snapshot(model) == before
    assert left_alone(model)
    layers = [layer for layer in model._flatten_layers() if type(layer) is BatchNormalizedRNN]
    assert len(shift) == len(layers)
    expected = sorted(shift_of(layer.cell, MANY[:, :2].astype("float64"), 0.5) for layer in layers)
    np.testing.assert_allclose(sorted(shift.values()), expected, rtol=0.1)


def test_dropout_of_the_states_is_seen_behind_the_layer():
    cells = [L.SimpleRNNCell(4, recurrent_dropout=0.5, name="first"), L.SimpleRNNCell(4, name="second")]
    model = sequential(BatchNormalizedRNN(L.RNN(cells), name="rnn"), shape=(3, 4))
    shift = kerasbn.variance_shift(model, MANY)
    assert shift["rnn/first_bn#0"] == 1
    assert shift["rnn/second_bn#0"] != 1


def test_dropout_of_a_stock_recurrent_layer_ahead():
    model = sequential(L.LSTM(4, dropout=0.5, return_sequences=True), L.BatchNormalization(name="n"), shape=(3, 4))
    assert kerasbn.variance_shift(model, MANY)["n#0"] != 1


def test_without_dropout_nothing_is_added():
    model = sequential(L.Bidirectional(normalized("stack")))
    assert set(kerasbn.variance_shift(model, PADDED).values()) == {1.0}


class Nested(L.Layer):
    """Normalizations of one name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norms = [L.BatchNormalization(name="n"), L.BatchNormalization(name="n")]
        self.inner = Holder(L.BatchNormalization(name="n"), 0.5, name="inner")

    def call(self, x, training=None):
        for each in (*self.norms, self.inner):
            x = each(x, training=training)
        return x


def test_addresses():
    inputs = keras.Input((4, 5))
    layer, custom = L.Bidirectional(normalized("LSTM"), name="both"), Nested(name="block")
    inner = keras.Sequential([keras.Input((4, 8)), normalized("stack")], name="inner")
    steps = L.TimeDistributed(L.BatchNormalization(name="each"), name="steps")
    x = layer(layer(inputs)[..., :5])
    model = randomize(keras.Model(inputs, steps(custom(inner(x)))))
    cell = cells_of(layer.forward_layer)[0].name
    stack = [f"inner/rnn/{norm.name}#0" for norm in inner.layers[-1].norms]
    expected = {
        *(f"both/{way}_rnn/{cell}_bn#{call}" for way in ("forward", "backward") for call in (0, 1)),
        *(*stack, "block/n#0", "block/n_1#0", "block/inner/n#0", "steps#0"),
    }
    shift = kerasbn.variance_shift(model, X)
    assert shift.keys() == expected
    assert {address for address, ratio in shift.items() if ratio != 1} == {"block/inner/n#0", "steps#0"}
    assert input_percentiles(model, X).keys() == expected
    assert input_percentiles(model, X, "inner/rnn/*").keys() == set(stack)
    assert {name for name, _ in Watch(model, ["steps", "block/*"], None).statistics()} == {
        f"{name}/{path}"
        for path in ("block/n", "block/n_1", "block/inner/n", "steps")
        for name in ("moving_mean", "moving_variance", "gamma", "beta")
    }


# Percentiles


@pytest.mark.parametrize("kind", ["LSTM", "stack, backwards"])
@masked
@pytest.mark.parametrize("channel", [None, 1])
def test_percentiles_are_those_of_the_input_products(kind, data, channel):
    layer = L.Bidirectional(normalized(kind), name="both") if kind == "LSTM" else normalized(kind)
    model = sequential(layer)
    before = snapshot(model)
    got = input_percentiles(model, data, "*_bn", percentiles=(0, 30, 100), channel=channel)
    assert snapshot(model) == before
    wrapped = [each for each in model._flatten_layers() if type(each) is BatchNormalizedRNN]
    assert len(got) == sum(len(each.norms) for each in wrapped)
    for each in wrapped:
        path = "rnn" if each is layer else f"both/{each.name}"
        products = data.astype("float64")[mask_of(data)] @ array_of(cells_of(each)[0].kernel)
        values = products if channel is None else products[:, channel]
        np.testing.assert_allclose(
            got[f"{path}/{each.norms[0].name}#0"], np.percentile(values, (0, 30, 100)), rtol=1e-4, atol=1e-4
        )


def test_statistics_of_one_channel():
    model = sequential(layer := normalized("LSTM"))
    found = dict(Watch(model, None, 2).statistics())
    path = f"rnn/{layer.norms[0].name}"
    assert found.keys() == {f"moving_mean/{path}", f"moving_variance/{path}", f"gamma/{path}"}
    gamma = keras.ops.convert_to_numpy(layer.norms[0].gamma)
    np.testing.assert_array_equal(found[f"gamma/{path}"], gamma[2:3])


def test_masks_that_leave_out_the_channels():
    norm = kerasbn.layers.BatchNormalization(axis=1, name="n")
    inputs, counting = keras.Input((5, 4)), keras.Input((4,), dtype="bool")
    model = randomize(keras.Model([inputs, counting], norm(inputs, mask=counting)))
    data = [np.swapaxes(X, 1, 2), MASK]
    kerasbn.calibrate(model, data)
    assert_moments([norm], [(X[MASK].mean(0), X[MASK].var(0, ddof=1))])
    np.testing.assert_allclose(
        input_percentiles(model, data, channel=3)["n#0"], np.percentile(X[MASK][:, 3], (15, 50, 85)), rtol=1e-5
    )


# Starting from measured statistics


@pytest.mark.parametrize("kind", [kind for kind in RECURRENT if kind not in ("backwards", "unrolled")])
@pytest.mark.parametrize("norm", [None, L.BatchNormalization()], ids=["bias", "beta"])
def test_measured_and_the_same_function(kind, norm):
    layer = L.Bidirectional(normalized(kind, norm), name="both") if kind == "GRU" else normalized(kind, norm)
    model = sequential(layer)
    wrapped = [each for each in model._flatten_layers() if type(each) is BatchNormalizedRNN]
    expected = {}
    for each in wrapped:
        kerasbn.calibrate(model, PADDED)  # so that the cells behind the first one get what they get as the model is
        expected[each] = computed(each, PADDED, MASK)[0]
    for each in wrapped:
        for number, one in enumerate(each.norms):  # far from the truth, but for what the layer computes
            _bend(one, cells_of(each)[number])
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    start_from_measured(model, [layer], PADDED, preserve=True)
    for each in wrapped:
        assert_moments(each.norms, expected[each], rtol=1e-3)
    assert_same_function(twin, model, PADDED)
    assert left_alone(model)


def _bend(norm, cell):
    """Other statistics, gamma and beta, or bias, that compute the same."""
    scale = array_of(norm.gamma) / np.sqrt(array_of(norm.moving_variance) + norm.epsilon)
    mean, shift = array_of(norm.moving_mean) + 1, scale
    norm.gamma.assign(scale * np.sqrt(4 + norm.epsilon))
    norm.moving_variance.assign(np.full(scale.shape, 4))
    norm.moving_mean.assign(mean)
    if norm.center:
        norm.beta.assign_add(shift)
    elif len(cell.bias.shape) == 2:
        cell.bias.assign_add(np.stack([shift, np.zeros_like(shift)]))
    else:
        cell.bias.assign_add(shift)


@masked
@pytest.mark.parametrize("kind", ["stack", "stack, backwards"])
def test_measured_as_in_training(kind, data):
    model = sequential(layer := normalized(kind))
    others = [norm.gamma.numpy() for norm in layer.norms]
    few, counting = data[:32], mask_of(data[:32])
    start_from_measured(model, [layer], few, preserve=False)
    assert_moments(layer.norms, computed(layer, few, counting, by_batch=True)[0], rtol=1e-3)
    assert all(np.array_equal(norm.gamma, value) for norm, value in zip(layer.norms, others, strict=True))


@pytest.mark.parametrize(
    ("kind", "norm"),
    [("LSTM", {"scale": False}), ("SimpleRNN, no bias", NO_BETA)],
    ids=["no gamma", "neither beta nor bias"],
)
def test_what_cannot_compute_the_same_is_left_as_it_was(kind, norm):
    model = sequential(normalized(kind, L.BatchNormalization(**norm)))
    before = snapshot(model)
    with pytest.raises(kerasbn.OptionError, match=r"'.*_bn' has scale=False, or center=False.*preserve=False"):
        start_from_measured(model, model.layers[1:], X, preserve=True)
    assert snapshot(model) == before
    start_from_measured(model, model.layers[1:], X, preserve=False)
    assert snapshot(model) != before


def test_a_call_that_was_set_on_a_layer_stays():
    layer = L.BatchNormalization()
    call = layer.call
    layer.call = functools.partial(call)
    mine = layer.call
    with _keras.told([layer], training=True), _keras.observed([layer], lambda *args, **kwargs: None):
        assert layer.call is not mine
    assert layer.call is mine
