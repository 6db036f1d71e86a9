"""Statistics are those of the data, layer after layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import kerasbn
import kerasbn.layers
from kerasbn import _keras
from kerasbn.statistics import calibration
from tests.helpers import randomize

DATA = np.random.default_rng(0).normal(2, 3, (90, 6, 6, 3)).astype("float32")


class Block(L.Layer):
    """A layer of a user's own with normalizations inside, not called in the order in which they were made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.second, self.first = L.BatchNormalization(name="second"), L.BatchNormalization(name="first")
        self.dense = L.Dense(4)

    def call(self, x, training=None):
        return self.second(self.dense(keras.ops.relu(self.first(x, training=training))), training=training)


def _functional():
    inputs = keras.Input((6, 6, 3), name="in")
    x = L.BatchNormalization(name="n0")(inputs)
    x = L.ReLU()(kerasbn.layers.BatchNormalization(name="n1")(L.Conv2D(4, 3, name="c1")(x)))
    y = L.BatchNormalization(name="n2", trainable=False)(L.Conv2D(4, 1, name="c2")(x))
    x = L.Add()([x, L.Dropout(0.5)(y)])
    x = L.BatchNormalization(name="n3", center=False, scale=False)(L.Conv2D(4, 3, activation="tanh", name="c3")(x))
    return keras.Model(inputs, L.Dense(2, name="head")(L.GlobalAveragePooling2D()(x)))


def _nested():
    layers = [L.BatchNormalization(name="n1"), L.ReLU(), L.Dense(4), L.BatchNormalization(name="n2")]
    inner = keras.Sequential([keras.Input((6, 6, 4)), *layers], name="inner")
    inputs = keras.Input((6, 6, 3), name="in")
    return keras.Model(inputs, L.Dense(2)(L.BatchNormalization(name="n3")(inner(L.Dense(4)(inputs)))))


def _custom_layers():
    return keras.Sequential(
        [keras.Input((6, 6, 3)), L.Dense(4), Block(name="b1"), L.ReLU(), Block(name="b2"), L.Flatten(), L.Dense(2)]
    )


def _every_step():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            L.TimeDistributed(L.Dense(4)),
            L.TimeDistributed(L.BatchNormalization(name="n1"), name="steps"),
            *(L.Flatten(), L.Dense(2)),
        ]
    )


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.block, self.head = L.Dense(4), Block(name="b"), L.Dense(2)

    def call(self, x, training=None):
        return self.head(self.block(self.dense(x), training=training))


def _subclassed():
    model = Subclassed()
    model(DATA[:2])
    return model


MODELS = {
    "functional": _functional,
    "nested": _nested,
    "inside of custom layers": _custom_layers,
    "every step": _every_step,
    "subclassed": _subclassed,
}


def _norms(model):
    return [layer for layer in _keras.sublayers(model) if isinstance(layer, L.BatchNormalization)]


def _inputs_at_inference(model, data):
    """All that each normalization gets while the model runs at inference, in float64."""
    got = {}

    def note(norm, inputs, training=None, mask=None):
        values = np.asarray(inputs, "float64").reshape(-1, inputs.shape[-1])
        got.setdefault(norm, []).append(values if mask is None else values[np.asarray(mask).ravel()])

    with _keras.observed(_norms(model), note):
        model(data, training=False)
    return {norm: np.concatenate(parts) for norm, parts in got.items()}


def _assert_calibrated(model, data=DATA, rtol=1e-4):
    got = _inputs_at_inference(model, data)
    assert got.keys() == set(_norms(model))
    for norm, values in got.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(norm.moving_mean, values.mean(0), rtol=rtol, atol=1e-5 * scale)
        np.testing.assert_allclose(norm.moving_variance, values.var(0, ddof=1), rtol=rtol, atol=1e-5 * scale**2)


@pytest.mark.parametrize("fits", [True, False], ids=["in memory", "larger than memory"])
@pytest.mark.parametrize("case", MODELS)
def test_every_layer_has_the_statistics_of_its_inputs(case, fits, monkeypatch):
    if not fits:
        monkeypatch.setattr(calibration, "_WAITING_BYTES", 20_000)
    model = randomize(MODELS[case]())
    others = [v for v in model.variables if v.name not in ("moving_mean", "moving_variance")]
    before = [v.numpy() for v in others]
    assert kerasbn.calibrate(model, DATA) is model
    _assert_calibrated(model)
    for variable, value in zip(others, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert not any("call" in vars(norm) for norm in _norms(model))


FORMS = {
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(DATA).batch(16),
    "endless dataset": lambda: tf.data.Dataset.from_tensor_slices((DATA, DATA[:, 0, 0, 0])).batch(30).repeat(),
    "generator": lambda: (DATA[start : start + 30] for start in range(0, 90, 30)),
}


@pytest.mark.parametrize("fits", [True, False], ids=["in memory", "larger than memory"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data(form, fits, monkeypatch):
    if not fits:
        monkeypatch.setattr(calibration, "_WAITING_BYTES", 20_000)
    model = randomize(_functional())
    kerasbn.calibrate(model, FORMS[form](), steps=3 if form == "endless dataset" else None)
    _assert_calibrated(model)


def test_each_batch_goes_through_the_network_once_where_it_fits():
    model = randomize(_functional())
    calls = []
    with _keras.observed([model.get_layer("c1")], lambda *args, **kwargs: calls.append(1)):
        kerasbn.calibrate(model, DATA)
    assert len(calls) == 3


def test_batches_do_not_weigh_more_than_their_values():
    model = randomize(_functional())
    uneven = (part for part in (DATA[:70], DATA[70:71], DATA[71:]))
    kerasbn.calibrate(model, uneven)
    _assert_calibrated(model)


def test_a_normalization_called_several_times_pools_its_calls():
    norm = L.BatchNormalization(name="n")
    left, right = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([left, right], L.Dense(1)(L.Add()([norm(left), norm(right)])))
    sides = [np.random.default_rng(seed).normal(seed, 1, (40, 4)).astype("float32") for seed in (1, 5)]
    kerasbn.calibrate(model, sides)
    both = np.concatenate(sides)
    np.testing.assert_allclose(norm.moving_mean, both.mean(0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, both.var(0, ddof=1), rtol=1e-4)


def test_masked_steps_do_not_count():
    inputs = keras.Input((5, 4), name="in")
    x = L.BatchNormalization(name="n")(L.Dense(3)(L.Masking()(inputs)))
    model = randomize(keras.Model(inputs, L.LSTM(2)(x)))
    data = np.random.default_rng(0).normal(3, 1, (40, 5, 4)).astype("float32")
    data[:25, 2:] = 0
    kerasbn.calibrate(model, data)
    _assert_calibrated(model, data)


def test_mixed_precision():
    inputs = keras.Input((20,), name="in")
    x = L.Dense(8, "relu", dtype="mixed_float16")(L.BatchNormalization(name="n1", dtype="mixed_float16")(inputs))
    model = keras.Model(inputs, L.Dense(2)(L.BatchNormalization(name="n2", dtype="mixed_bfloat16")(x)))
    data = np.random.default_rng(0).normal(30, 10, (200, 20)).astype("float32")
    kerasbn.calibrate(model, data)
    _assert_calibrated(model, data, rtol=5e-3)


def test_state_of_recurrent_layers_is_kept():
    rnn = L.LSTM(4, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(4, 5, 6)), rnn, L.BatchNormalization(name="n"), L.Dense(1)])
    model(np.ones((4, 5, 6), "float32"))
    before = [np.asarray(state) for state in rnn.states]
    kerasbn.calibrate(model, np.random.default_rng(0).normal(size=(8, 5, 6)).astype("float32"))
    for state, value in zip(rnn.states, before, strict=True):
        np.testing.assert_array_equal(state, value)


def _statistics(model):
    return [variable.numpy() for norm in _norms(model) for variable in (norm.moving_mean, norm.moving_variance)]


def _interrupted():
    yield DATA[:30]
    yield DATA[30:60]
    raise KeyboardInterrupt


FAILURES = {
    "interrupt": (_interrupted, KeyboardInterrupt, None),
    "not finite": (lambda: DATA * np.inf, kerasbn.OptionError, "layer 'n0' normalizes is not finite"),
    "overflow further down": (lambda: DATA * np.float32(1e37), kerasbn.OptionError, "is not finite"),
    "no batch": (lambda: DATA[:0], kerasbn.OptionError, "holds no batch"),
    "another shape": (lambda: DATA[..., :2], kerasbn.OptionError, "'in' has shape"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_statistics_are_as_before_after_a_failure(case):
    data, error, message = FAILURES[case]
    model = randomize(_functional())
    before = _statistics(model)
    with pytest.raises(error, match=message):
        kerasbn.calibrate(model, data())
    for value, kept in zip(_statistics(model), before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_an_interrupt_between_two_stages(monkeypatch):
    monkeypatch.setattr(calibration, "_WAITING_BYTES", 0)
    model = randomize(_functional())
    before = _statistics(model)

    class Interrupted(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if any(not np.array_equal(value, kept) for value, kept in zip(_statistics(model), before, strict=True)):
                raise KeyboardInterrupt
            return DATA[:30]

    with pytest.raises(KeyboardInterrupt):
        kerasbn.calibrate(model, Interrupted())
    for value, kept in zip(_statistics(model), before, strict=True):
        np.testing.assert_array_equal(value, kept)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_must_be_a_count(steps):
    with pytest.raises(kerasbn.OptionError, match="steps"):
        kerasbn.calibrate(_functional(), DATA, steps=steps)


def test_a_model_without_batch_normalization_is_left_alone():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    assert kerasbn.calibrate(model, np.zeros((3, 4), "float32")) is model
