"""Statistics are those of the data, layer after layer."""

import contextlib
import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import kerasbn
import kerasbn.layers
from kerasbn import _keras
from kerasbn.arrays import array_of
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


def _functional(trainable=True):
    inputs = keras.Input((6, 6, 3), name="in")
    x = L.BatchNormalization(name="n0")(inputs)
    x = L.ReLU()(kerasbn.layers.BatchNormalization(name="n1", renorm=True, accumulate=3)(L.Conv2D(4, 3, name="c1")(x)))
    y = L.BatchNormalization(name="n2", trainable=trainable)(L.Conv2D(4, 1, name="c2")(x))
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


class Compiled(Block):
    """A layer whose call TensorFlow compiles: once traced, it does not come back to Python."""

    @tf.function
    def call(self, x, training=None):
        return super().call(x, training=training)


class CompiledModel(Subclassed):
    """A model whose call TensorFlow compiles."""

    @tf.function(jit_compile=True)
    def call(self, x, training=None):
        return super().call(x, training=training)


class NeverCalled(Block):
    """A layer that holds a normalization that it never calls, so that it is never built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.spare = L.BatchNormalization(name="spare")


class Trainer(keras.Model):
    """A functional model that trains in a way of its own."""

    def train_step(self, data):
        raise NotImplementedError


def _with_layer(kind):
    return keras.Sequential([keras.Input((6, 6, 3)), L.Dense(4), kind(name="b"), L.Flatten(), L.Dense(2)])


def _trainer():
    model = _functional()
    return Trainer(model.input, model.output)


def _compiled_model():
    model = CompiledModel()
    model(DATA[:2])
    return model


def _subclassed():
    model = Subclassed()
    model(DATA[:2])
    return model


class Holding(keras.Model):
    """Holds a network, which a `train_step` of its own may train without ever calling the model."""

    def __init__(self):
        super().__init__()
        self.network = _functional()

    def call(self, x, training=None):
        return self.network(x, training=training)


MODELS = {
    "never called itself": Holding,
    "functional": _functional,
    "a frozen one": lambda: _functional(trainable=False),
    "nested": _nested,
    "inside of custom layers": _custom_layers,
    "every step": _every_step,
    "subclassed": _subclassed,
    "compiled layer": lambda: _with_layer(Compiled),
    "compiled model": _compiled_model,
    "holds one that is never called": lambda: _with_layer(NeverCalled),
    "trains in its own way": _trainer,
}
MARKS = dict.fromkeys(("compiled layer", "compiled model"), pytest.mark.tensorflow)  # by tf.function


def _norms(model):
    return [layer for layer in _keras.sublayers(model) if isinstance(layer, L.BatchNormalization)]


def _inputs_at_inference(model, data):
    """All that each normalization gets while the model runs at inference, in float64."""
    got = {}

    def note(norm, inputs, training=None, mask=None):
        values = array_of(inputs).reshape(-1, inputs.shape[-1])
        got.setdefault(norm, []).append(values if mask is None else values[keras.ops.convert_to_numpy(mask).ravel()])

    with _keras.every_call_made(), _keras.observed(_norms(model), note):
        model(data, training=False)
    return {norm: np.concatenate(parts) for norm, parts in got.items()}


def _assert_calibrated(model, data=DATA, rtol=1e-4):
    got = _inputs_at_inference(model, data)
    assert got.keys() == {norm for norm in _norms(model) if norm.built}
    for norm, values in got.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(norm.moving_mean, values.mean(0), rtol=rtol, atol=1e-5 * scale)
        np.testing.assert_allclose(norm.moving_variance, values.var(0, ddof=1), rtol=rtol, atol=1e-5 * scale**2)


@pytest.mark.parametrize("fits", [True, False], ids=["in memory", "larger than memory"])
@pytest.mark.parametrize("case", [pytest.param(case, marks=MARKS.get(case, ())) for case in MODELS])
def test_every_layer_has_the_statistics_of_its_inputs(case, fits, monkeypatch):
    if not fits:
        monkeypatch.setattr(calibration, "_WAITING_BYTES", 20_000)
    model = randomize(MODELS[case]())
    statistics = {v.path for norm in _norms(model) for v in norm.non_trainable_variables}
    others = [v for v in model.variables if v.path not in statistics]
    before = [v.numpy() for v in others]
    assert kerasbn.calibrate(model, DATA, frozen=True) is model
    _assert_calibrated(model)
    for variable, value in zip(others, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert not any("call" in vars(norm) for norm in _norms(model))
    assert not tf.config.functions_run_eagerly()


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


STEPS = np.random.default_rng(0).normal(3, 1, (40, 5, 4)).astype("float32")
STEPS[:25, 2:] = 0
COUNTING = np.any(STEPS, -1)


def _inner(**kwargs):
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, L.BatchNormalization(name="n")(L.Dense(3)(inputs)), name="inner", **kwargs)


def _inner_sequential():
    return keras.Sequential([L.Dense(3), L.BatchNormalization(name="n"), L.Dense(3)], name="sequential")


def _inner_at_once():
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, L.BatchNormalization(name="n")(inputs), name="inner")


def _inner_deep():
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, _inner_sequential()(_inner_at_once()(inputs)), name="deep")


def _inner_passing_on():
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, _inner()(inputs, mask=keras.ops.any(keras.ops.not_equal(inputs, 0), -1)), name="passing")


def _inner_every_step():
    network = [keras.Input((4,)), L.Dense(3), L.BatchNormalization(name="n"), L.Dense(3)]
    return L.TimeDistributed(keras.Sequential(network))


INNER = {
    "functional": _inner,
    "sequential": _inner_sequential,
    "normalization first": _inner_at_once,
    "deep": _inner_deep,
    "given further inside": _inner_passing_on,
    "every step": _inner_every_step,
}


@pytest.mark.parametrize("given", ["travels", "passed on"])
@pytest.mark.parametrize("case", INNER)
def test_masks_reach_models_inside(case, given):
    inputs, counting = keras.Input((5, 4), name="in"), keras.Input((5,), dtype="bool", name="counting")
    inner = INNER[case]()
    x = L.Activation("linear")(inputs)
    x = inner(L.Masking()(x)) if given == "travels" else inner(x, mask=counting)
    model = randomize(keras.Model([inputs, counting], L.Dense(2)(x)))
    kerasbn.calibrate(model, [STEPS, COUNTING])
    _assert_calibrated(model, [STEPS, COUNTING])
    if given == "passed on" and case != "given further inside":
        before = _statistics(model)
        kerasbn.calibrate(model, [STEPS, np.ones_like(COUNTING)])
        same = map(functools.partial(np.allclose, rtol=0.05), before, _statistics(model))
        assert not all(same), "a mask that changes nothing tells nothing"


def test_masks_of_several_inputs_each_reach_theirs():
    left, right, counting = keras.Input((5, 4)), keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    sides = {"a": keras.Input((5, 4)), "b": keras.Input((5, 4))}
    normalized = [L.BatchNormalization(name=f"n_{name}")(side) for name, side in sides.items()]
    inner = keras.Model(sides, normalized, name="inner")
    outputs = inner({"a": left, "b": right}, mask={"a": None, "b": counting})
    model = randomize(keras.Model([left, right, counting], outputs))
    data = [STEPS, STEPS, COUNTING]
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
    return [variable.numpy() for norm in _norms(model) for variable in norm.non_trainable_variables]


def _endless():
    while True:
        yield DATA[:30]


class Endless(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return DATA[:30]


def _interrupted():
    yield DATA[:30]
    yield DATA[30:60]
    raise KeyboardInterrupt


FAILURES = {
    "interrupt": (_interrupted, KeyboardInterrupt, None),
    "not finite": (lambda: DATA * np.inf, kerasbn.OptionError, "layer 'n0' normalizes is not finite"),
    "overflow further down": (lambda: DATA * np.float32(1e37), kerasbn.OptionError, "is not finite"),
    "no batch": (lambda: DATA[:0], kerasbn.OptionError, "holds no batch"),
    "no example": (lambda: (DATA[:0] for _ in range(3)), kerasbn.OptionError, "holds no batch"),
    "another shape": (lambda: DATA[..., :2], kerasbn.OptionError, "'in' has shape"),
    "another shape later": (lambda: iter([DATA[:30], DATA[:30, ..., :2]]), kerasbn.OptionError, "'in' has shape"),
    "another rank": (
        lambda: DATA[0],
        kerasbn.OptionError,
        r"have the shapes \[\(None, 6, 6, 3\)\], the data \[\(6, 6, 3",
    ),
    "none": (lambda: None, kerasbn.OptionError, "it is None"),
    "no data": (list, kerasbn.OptionError, r"it is \[\]"),
    "a batch is none": (lambda: iter([DATA[:30], None]), kerasbn.OptionError, "a batch of it is None"),
    "the inputs are none": (lambda: iter([(None, DATA[:30])]), kerasbn.OptionError, "a batch of it is None"),
    "numbers": (lambda: DATA[:4].tolist(), kerasbn.OptionError, "numpy.asarray"),
    "examples": (lambda: list(DATA), kerasbn.OptionError, r"numpy.stack\(examples\)"),
    "batches": (lambda: [DATA[:30], DATA[30:60]], kerasbn.OptionError, r"iter\(batches\)"),
    "with targets": (lambda: (DATA, DATA[:, 0]), kerasbn.OptionError, "without targets"),
    "endless dataset": (
        lambda: tf.data.Dataset.from_tensor_slices(DATA).batch(30).repeat(),
        kerasbn.OptionError,
        r"never ends.*itertools.islice",
    ),
    "endless PyDataset": (Endless, kerasbn.OptionError, "never ends"),
    "endless cycle": (lambda: itertools.cycle([DATA[:30]]), kerasbn.OptionError, "not ended after 10000 batches"),
    "endless generator": (_endless, kerasbn.OptionError, "not ended after 10000 batches"),
}


@pytest.mark.parametrize("passes", [None, 2])
@pytest.mark.parametrize("case", FAILURES)
def test_statistics_are_as_before_after_a_failure(case, passes):
    data, error, message = FAILURES[case]
    model = randomize(_functional())
    before = _statistics(model)
    with pytest.raises(error, match=message):
        kerasbn.calibrate(model, data(), passes=passes)
    for value, kept in zip(_statistics(model), before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_what_a_generator_holds_is_limited(monkeypatch):
    monkeypatch.setattr(calibration, "_HELD_BYTES", 20_000)
    with pytest.raises(kerasbn.OptionError, match="Pass steps"):
        kerasbn.calibrate(_functional(), _endless())
    model = randomize(_functional())
    kerasbn.calibrate(model, _endless(), steps=3)
    _assert_calibrated(model, np.concatenate([DATA[:30]] * 3))


REMEDIES = {
    "asarray": lambda: np.asarray(DATA.tolist()),
    "stack": lambda: np.stack(list(DATA)),
    "iter": lambda: iter([DATA[:30], DATA[30:60], DATA[60:]]),
    "a part of a generator": lambda: itertools.islice((part for part in itertools.cycle(np.split(DATA, 3))), 3),
    "a part of a dataset": lambda: itertools.islice(tf.data.Dataset.from_tensor_slices(DATA).batch(30).repeat(), 3),
}


@pytest.mark.parametrize("remedy", REMEDIES)
def test_what_the_errors_advise(remedy):
    model = randomize(_functional())
    kerasbn.calibrate(model, REMEDIES[remedy]())
    _assert_calibrated(model)


def test_a_part_of_an_endless_dataset():
    model = randomize(_functional())
    kerasbn.calibrate(model, itertools.islice(Endless(), 2))
    _assert_calibrated(model, np.concatenate([DATA[:30]] * 2))


def test_a_batch_size_that_the_model_does_not_take():
    model = keras.Sequential([keras.Input(batch_shape=(4, 3)), L.BatchNormalization(), L.Dense(1)])
    with pytest.raises(kerasbn.OptionError, match="no batch of 4 examples"):
        kerasbn.calibrate(model, iter([np.ones((16, 3), "float32")]))


class Hidden(L.Layer):
    """Calls a normalization on each example, in a function that is compiled on the way."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = L.BatchNormalization(name="hidden")

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return keras.ops.vectorized_map(lambda example: self.norm(example[None])[0], x)


class WithoutCall(keras.Model):
    def __init__(self):
        super().__init__()
        self.network = _functional()


class OfKeras2:
    name, layers = "old", ()


OfKeras2.__module__ = "tf_keras.src.engine.sequential"

MODELS_THAT_CANNOT_BE = {
    "not built": (lambda: keras.Sequential([L.Dense(3), L.BatchNormalization()]), "not built yet"),
    "subclassed, not built": (Subclassed, "not built yet"),
    "without a call": (WithoutCall, "has no call"),
    "hidden values": (lambda: _with_layer(Hidden), "'hidden' is called inside of a function"),
    "of Keras 2": (OfKeras2, r"tf_keras.*model.save\('model.h5'\)"),
    "none": (lambda: None, "Expected a Keras 3 model"),
    "a layer": (L.BatchNormalization, "Expected a Keras 3 model"),
    "a path": (lambda: "model.keras", "Expected a Keras 3 model"),
}


@pytest.mark.parametrize("case", MODELS_THAT_CANNOT_BE)
def test_models_that_cannot_be_calibrated(case):
    make, message = MODELS_THAT_CANNOT_BE[case]
    with pytest.raises(kerasbn.UnsupportedModelError, match=message):
        kerasbn.calibrate(make(), DATA)


@pytest.mark.parametrize("data", [DATA[..., :2], DATA[0, 0], [DATA, DATA]], ids=["width", "rank", "list"])
def test_a_model_without_a_graph_that_cannot_be_run(data):
    model = _subclassed()
    before = _statistics(model)
    with pytest.raises(kerasbn.OptionError, match="cannot be run on option data"):
        kerasbn.calibrate(model, data)
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


def _by_name(model):
    return {norm.name: norm for norm in _norms(model)}


# What is asked for, and which of the layers n0 to n3, of which n2 is frozen, get new statistics.
ASKED = {
    "all": ({}, "n0 n1 n3"),
    "frozen too": ({"frozen": True}, "n0 n1 n2 n3"),
    "a glob": ({"layers": "n[01]"}, "n0 n1"),
    "globs": ({"layers": ["n0", "n3"]}, "n0 n3"),
    "a frozen one by its path": ({"layers": "n2"}, ""),
    "a frozen one, asked for": ({"layers": "n2", "frozen": True}, "n2"),
}


@pytest.mark.parametrize("passes", [None, 1])
@pytest.mark.parametrize("case", ASKED)
def test_what_is_asked_for_is_measured_and_nothing_else(case, passes):
    options, names = ASKED[case]
    model = randomize(_functional(trainable=False))
    before = {
        name: (array_of(norm.moving_mean), array_of(norm.moving_variance)) for name, norm in _by_name(model).items()
    }
    left = "n2" in [norm for norm in before if "layers" not in options or norm in options["layers"]]
    named = left and not options.get("frozen")
    with pytest.warns(UserWarning, match="'n2'.*frozen=True") if named else contextlib.nullcontext():
        kerasbn.calibrate(model, DATA, **options, passes=passes)
    changed = [
        name
        for name, norm in _by_name(model).items()
        if not all(map(np.array_equal, before[name], (norm.moving_mean, norm.moving_variance)))
    ]
    assert changed == names.split()


def test_blended_statistics_lie_between_those_that_were_and_those_that_are_measured():
    model = randomize(keras.Sequential([keras.Input((6, 6, 3)), L.BatchNormalization()]))
    (norm,) = _norms(model)
    old = [array_of(norm.moving_mean), array_of(norm.moving_variance)]
    kerasbn.calibrate(model, DATA, blend=0.3)
    values = DATA.reshape(-1, 3).astype("float64")
    for got, was, measured in zip(
        (norm.moving_mean, norm.moving_variance), old, (values.mean(0), values.var(0, ddof=1)), strict=True
    ):
        np.testing.assert_allclose(got, 0.7 * was + 0.3 * measured, rtol=1e-5)


@pytest.mark.parametrize("case", [pytest.param(case, marks=MARKS.get(case, ())) for case in MODELS])
def test_as_many_passes_as_layers_in_a_row_are_exact(case):
    exact, model = (randomize(MODELS[case]()) for _ in range(2))
    kerasbn.calibrate(exact, DATA, frozen=True)
    kerasbn.calibrate(model, DATA, frozen=True, passes=len(_norms(model)) + 1)
    for got, expected in zip(_statistics(model), _statistics(exact), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert [norm.trainable for norm in _norms(model)] == [norm.trainable for norm in _norms(exact)]


def test_one_pass_normalizes_by_the_batch():
    """A single batch is the population, so that one pass finds what the exact way does but for m / (m - 1)."""
    exact, model = (randomize(_functional()) for _ in range(2))
    kerasbn.calibrate(exact, DATA, frozen=True)
    kerasbn.calibrate(model, iter([DATA]), frozen=True, passes=1)
    for got, expected in zip(_statistics(model), _statistics(exact), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


# An option that is refused, and what the message names.
REFUSED = {
    "no such layer": ({"layers": "n9"}, "'n9', which matches no batch normalization.*such as 'n0'"),
    "one of two globs": ({"layers": ["n1", "n9"]}, "'n9'"),
    "blend above 1": ({"blend": 1.5}, "from 0 to 1"),
    "blend in words": ({"blend": "half"}, "from 0 to 1"),
    "no pass": ({"passes": 0}, "positive number of passes"),
    "half a pass": ({"passes": 0.5}, "positive number of passes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_are_refused(case):
    options, message = REFUSED[case]
    with pytest.raises(kerasbn.OptionError, match=message):
        kerasbn.calibrate(_functional(), DATA, **options)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_must_be_a_count(steps):
    with pytest.raises(kerasbn.OptionError, match="steps"):
        kerasbn.calibrate(_functional(), DATA, steps=steps)


def test_a_model_without_batch_normalization_is_left_alone():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    assert kerasbn.calibrate(model, np.zeros((3, 4), "float32")) is model


def _one(norm):
    return keras.Sequential([keras.Input((6, 6, 3)), norm, L.GlobalAveragePooling2D(), L.Dense(2)])


KINDS = {
    "plain": L.BatchNormalization,
    "renorm of Keras": functools.partial(L.BatchNormalization, renorm=True),
    "renorm": functools.partial(kerasbn.layers.BatchNormalization, renorm=True),
}
MEASURED = {
    "calibrated": lambda norm: kerasbn.calibrate(_one(norm), DATA),
    "in one pass": lambda norm: kerasbn.calibrate(_one(norm), DATA, passes=1),
    "blended": lambda norm: kerasbn.calibrate(_one(norm), DATA, blend=0.9),
    "averaged": lambda norm: kerasbn.average([_one(norm)], DATA),
    "inserted": lambda norm: kerasbn.rewrite(_one(L.Dense(3)), position="before", norm=norm, data=DATA),
    "fitted": lambda norm: kerasbn.rewrite(
        _one(L.LayerNormalization()), position="none", existing="replace", norm=norm, data=DATA
    ),
}


@pytest.mark.parametrize("case", MEASURED)
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_what_was_measured(kind, case):
    model = MEASURED[case](KINDS[kind](momentum=0.999, renorm_momentum=0.999, epsilon=0.1))
    before = _statistics(model)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(DATA[:30], np.zeros((30, 2), "float32"), verbose=0)
    for got, measured in zip(_statistics(model), before, strict=True):
        np.testing.assert_allclose(got, measured, rtol=5e-3, atol=5e-3)


def test_statistics_that_are_not_finite_are_replaced():
    data = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), L.BatchNormalization()])
    model.layers[0].moving_variance.assign(np.full(4, np.nan))
    kerasbn.calibrate(model, data)
    np.testing.assert_allclose(model.layers[0].moving_variance, data.var(axis=0, ddof=1), rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the others keep nothing for gradients")
def test_nothing_is_kept_for_gradients():
    class Watches(keras.layers.Layer):
        def call(self, inputs):
            seen.append(inputs.requires_grad)
            return inputs

    seen = []
    layers = [keras.layers.Dense(3), Watches(), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((4,)), *layers])
    seen.clear()
    kerasbn.calibrate(model, np.ones((8, 4), "float32"))
    assert seen
    assert not any(seen)
