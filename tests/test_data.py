"""Inserted layers start from the statistics of a sample."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import kerasbn
from kerasbn.arrays import array_of
from kerasbn.graph.read import read
from kerasbn.graph.run import Runner, call_at_inference
from tests.helpers import assert_same_function, randomize, snapshot

SAMPLE = np.random.default_rng(0).normal(2, 3, (100, 8, 8, 3)).astype("float32")
TARGETS = np.zeros((100, 1), "float32")


def _network(**kwargs):
    inputs = keras.Input((8, 8, 3), name="in", **kwargs)
    x = L.Conv2D(6, 3, activation="relu", name="a")(inputs)
    block = keras.Sequential([keras.Input((6, 6, 6)), L.Conv2D(6, 3, activation="tanh", name="b")], name="block")
    x = L.Dropout(0.5, name="d")(L.Dense(5, activation="relu", name="c")(block(x)))
    return randomize(keras.Model(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling2D(name="pool")(x))))


def _inputs_of(model, name, inputs):
    """What a layer of the trunk gets at inference."""
    tensor = keras.tree.flatten(model.get_layer(name).input)[0]
    return array_of(keras.Model(model.input, tensor)(inputs))


class _Batches(keras.utils.PyDataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return SAMPLE[10 * index : 10 * index + 10], TARGETS[:10]


FORMS = {
    "arrays": lambda: SAMPLE,
    "dataset of inputs": lambda: tf.data.Dataset.from_tensor_slices(SAMPLE).batch(16),
    "dataset with targets": lambda: tf.data.Dataset.from_tensor_slices((SAMPLE, TARGETS)).batch(16),
    "generator of inputs": lambda: (SAMPLE[start : start + 30] for start in range(0, 100, 30)),
    "generator with targets": lambda: ((part, part[:, 0, 0, :1]) for part in np.split(SAMPLE, 4)),
    "PyDataset": _Batches,
}


@pytest.mark.parametrize("form", FORMS)
def test_statistics_are_those_of_the_whole_sample(form):
    source = _network()
    before = snapshot(source)
    result = kerasbn.rewrite(source, data=FORMS[form]())
    for name in ("a_bn", "c_bn"):
        values = _inputs_of(result, name, SAMPLE)
        norm = result.get_layer(name)
        np.testing.assert_allclose(norm.moving_mean, values.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, values.var((0, 1, 2), ddof=1), rtol=1e-4)
    inside = result.get_layer("block").get_layer("b_bn")
    assert np.ptp(inside.moving_variance) > 0
    assert snapshot(source) == before
    assert_same_function(source, result)


@pytest.mark.parametrize("position", ["before", "after"])
def test_training_mode_starts_close_to_the_source(position):
    source = _network()
    fresh = kerasbn.rewrite(source, position=position, dropout="all")
    measured = kerasbn.rewrite(source, position=position, dropout="all", data=SAMPLE)
    expected = keras.ops.convert_to_numpy(source(SAMPLE, training=False))
    scale = np.abs(expected).max()
    assert np.abs(array_of(measured(SAMPLE, training=True)) - expected).max() < 1e-2 * scale
    assert np.abs(array_of(fresh(SAMPLE, training=True)) - expected).max() > 0.1 * scale


def test_without_preserve_each_layer_sees_what_the_normalized_ones_before_it_yield():
    result = kerasbn.rewrite(_network(), data=SAMPLE, preserve=False)
    norm = result.get_layer("c_bn")
    values = _inputs_of(result, "c_bn", SAMPLE)
    np.testing.assert_allclose(norm.gamma, 1)
    # Behind layers that are normalized by the moments of each batch: close to those of the sample.
    np.testing.assert_allclose(norm.moving_mean, values.mean((0, 1, 2)), atol=0.1)
    np.testing.assert_allclose(norm.moving_variance, values.var((0, 1, 2)), rtol=0.2)


def test_masked_steps_do_not_count():
    inputs = keras.Input((5, 4), name="in")
    x = L.Dense(3, activation="relu", name="a")(L.Masking(name="mask")(inputs))
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(L.LSTM(4, name="rnn")(x))))
    sample = np.random.default_rng(0).normal(3, 1, (40, 5, 4)).astype("float32")
    sample[:25, 2:] = 0
    result = kerasbn.rewrite(source, data=sample)
    values = _inputs_of(result, "a_bn", sample).reshape(-1, 3)[np.any(sample, -1).ravel()]
    np.testing.assert_allclose(result.get_layer("a_bn").moving_mean, values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(result.get_layer("a_bn").moving_variance, values.var(0, ddof=1), rtol=1e-4)
    assert_same_function(source, result, sample)


def test_masks_that_models_inside_are_called_with():
    inputs = keras.Input((5, 4), name="in")
    counting = keras.ops.any(keras.ops.not_equal(inputs, 0), axis=-1)
    layers = [keras.Input((5, 4)), L.Dense(3, activation="relu", name="a"), L.Dense(3, activation="relu", name="b")]
    x = keras.Sequential(layers, name="block")(inputs, mask=counting)
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(L.GlobalAveragePooling1D(name="pool")(x))))
    sample = np.random.default_rng(0).normal(3, 1, (40, 5, 4)).astype("float32")
    sample[:25, 2:] = 0
    result = kerasbn.rewrite(source, position="after", data=sample)
    dense = source.get_layer("block").get_layer("a")
    values = np.asarray(dense(sample), "float64").reshape(-1, 3)[np.any(sample, -1).ravel()]
    norm = result.get_layer("block").get_layer("a_bn")
    np.testing.assert_allclose(norm.moving_mean, values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, values.var(0, ddof=1), rtol=1e-4)
    assert_same_function(source, result, sample)


class Compiled(L.Layer):
    """A layer of a user's own whose call TensorFlow compiles."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(3, activation="relu", name="dense")

    def build(self, shape):
        self.dense.build(shape)

    @tf.function
    def call(self, x):
        return self.dense(x)


def test_what_a_compiled_layer_yields_is_measured():
    inputs = keras.Input((4,), name="in")
    x = L.Dense(3, activation="relu", name="a")(Compiled(name="compiled")(inputs))
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(x)))
    sample = np.random.default_rng(0).normal(3, 1, (40, 4)).astype("float32")
    result = kerasbn.rewrite(source, position="after", data=sample)
    values = _inputs_of(result, "a_bn", sample)
    np.testing.assert_allclose(result.get_layer("a_bn").moving_mean, values.mean(0), rtol=1e-4)
    assert_same_function(source, result, sample)


def test_one_normalization_for_several_calls_pools_them():
    inputs = [keras.Input((4,), name="left"), keras.Input((4,), name="right")]
    layer = L.Dense(3, activation="relu", name="a")
    merged = L.Concatenate(name="both")([layer(tensor) for tensor in inputs])
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(merged)))
    left, right = (np.random.default_rng(seed).normal(seed, 1, (50, 4)).astype("float32") for seed in (1, 5))
    result = kerasbn.rewrite(source, shared="shared", data=[left, right])
    values = np.concatenate([keras.ops.convert_to_numpy(result.get_layer("a")(side)) for side in (left, right)])
    np.testing.assert_allclose(result.get_layer("a_bn").moving_mean, values.mean(0), rtol=1e-4)


def test_state_is_not_touched_while_measuring():
    inputs = keras.Input(batch_shape=(4, 5, 6), name="in")
    rnn = L.LSTM(4, stateful=True, return_sequences=True, name="rnn")
    x = L.Flatten(name="flat")(L.Dense(3, activation="relu", name="a")(rnn(inputs)))
    source = keras.Model(inputs, L.Dense(2, name="head")(x))
    before = snapshot(source)
    sample = np.random.default_rng(0).normal(size=(10, 5, 6)).astype("float32")
    result = kerasbn.rewrite(source, data=sample, copy=False)  # two whole batches of 4
    assert snapshot(source) == before
    assert result.get_layer("rnn") is rnn
    assert np.any(result.get_layer("a_bn").moving_mean)


def test_a_value_lives_until_its_last_use():
    graph = read(_network())
    alive, most = 0, 0

    class Tensor:
        shape = (4, 8, 8, 3)

        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    runner = Runner(graph, lambda site: site.path == "head")
    runner.advance(runner.start([Tensor()]), lambda site, args, kwargs: Tensor())
    assert sum(not site.is_input for site in graph.flat.sites) == 6
    assert most == 2  # what is read and what is made


def test_only_what_leads_to_the_targets_is_run():
    graph = read(_network())
    called = []

    def call(site, args, kwargs):
        called.append(site.address)
        return call_at_inference(site, args, kwargs)

    runner = Runner(graph, lambda site: site.path == "block/b")
    runner.advance(runner.start([keras.ops.convert_to_tensor(SAMPLE[:2])]), call)
    assert called == ["a#0", "block/b#0"]


class _Endless(_Batches):
    @property
    def num_batches(self):
        return None


BAD = {
    "endless dataset": (
        lambda: {"data": tf.data.Dataset.from_tensor_slices(SAMPLE).batch(16).repeat()},
        r"never ends.*itertools.islice\(data, 100\)",
    ),
    "endless PyDataset": (lambda: {"data": _Endless()}, "never ends"),
    "endless cycle": (lambda: {"data": itertools.cycle([SAMPLE])}, "never ends"),
    "a batch is none": (lambda: {"data": iter([SAMPLE, None])}, "a batch of it is None"),
    "no example": (lambda: {"data": iter([SAMPLE[:0]])}, "holds no batch"),
    "numbers": (lambda: {"data": SAMPLE[:2].tolist()}, "numpy.asarray"),
    "a list of batches": (lambda: {"data": [SAMPLE, SAMPLE, SAMPLE]}, r"iter\(batches\)"),
    "a string": (lambda: {"data": "digits.npz"}, "data is 'digits.npz'"),
    "empty": (lambda: {"data": SAMPLE[:0]}, "holds no batch"),
    "used up": (lambda: {"data": iter([])}, "holds no batch"),
    "another shape": (lambda: {"data": SAMPLE[..., :2]}, r"'in' has shape \(8, 8, 3\), the data \(8, 8, 2\)"),
    "too many inputs": (lambda: {"data": [SAMPLE, SAMPLE]}, "has 1 inputs, the data 2"),
    "another kind": (lambda: {"data": object()}, "cannot be taken batch by batch"),
    "not finite": (lambda: {"data": SAMPLE * np.inf}, "layer 'a_bn' normalizes is not finite"),
    "no scale": (lambda: {"data": SAMPLE, "norm": L.BatchNormalization(scale=False)}, "scale=False"),
    "no statistics": (lambda: {"data": SAMPLE, "norm": L.LayerNormalization()}, "keeps no statistics"),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_does_not_fit(case):
    options, message = BAD[case]
    with pytest.raises(kerasbn.OptionError, match=message):
        kerasbn.rewrite(_network(), **options())


def _of_two(structure):
    given = {"a": keras.Input((6,), name="a"), "b": keras.Input((4,), name="b")}
    outputs = L.Dense(1)(L.BatchNormalization()(L.Concatenate()([*given.values()])))
    return keras.Model(structure(given), outputs)


STRUCTURES = {"dict": dict, "list": lambda given: [*given.values()]}
A, B = (np.random.default_rng(size).normal(size=(20, size)).astype("float32") for size in (6, 4))
LACKING = {
    "one missing": ({"a": A}, "lacks 'b', and holds 'a'"),
    "one misspelt": ({"a": A, "B": B}, "lacks 'b', and holds 'a', 'B'"),
    "nothing": ({}, "lacks 'a', 'b', and holds nothing"),
}


@pytest.mark.parametrize("batched", [False, True], ids=["arrays", "batches"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("case", LACKING)
def test_a_dict_that_lacks_an_input(case, structure, batched):
    data, message = LACKING[case]
    if not data and not batched:
        message = "it is {}"
    with pytest.raises(kerasbn.OptionError, match=message):
        kerasbn.calibrate(_of_two(STRUCTURES[structure]), iter([data]) if batched else data)


@pytest.mark.parametrize(("structure", "lengths"), [("dict", "'a' 20, 'b' 7"), ("list", "'0' 20, '1' 7")])
def test_arrays_of_different_lengths(structure, lengths):
    with pytest.raises(kerasbn.OptionError, match=f"different lengths: {lengths}"):
        kerasbn.calibrate(_of_two(STRUCTURES[structure]), STRUCTURES[structure]({"a": A, "b": B[:7]}))


class Plus(L.Layer):
    """Adds what may be left out."""

    def call(self, x, more=None):
        return x if more is None else x + more


@pytest.mark.parametrize("batched", [False, True], ids=["arrays", "batches"])
@pytest.mark.parametrize("more", [None, B], ids=["left out", "given"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_optional_input(structure, more, batched):
    given = {"b": keras.Input((4,), name="b"), "more": keras.Input((4,), name="more", optional=True)}
    outputs = L.Dense(2)(L.BatchNormalization(name="bn")(Plus()(*given.values())))
    model = keras.Model(STRUCTURES[structure](given), outputs)
    data = STRUCTURES[structure]({"b": B, "more": more})
    kerasbn.calibrate(model, iter([(data, B)]) if batched else data)
    expected = B if more is None else B + more
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, expected.mean(0), rtol=1e-4, atol=1e-6)


def test_an_input_that_may_not_be_left_out():
    with pytest.raises(kerasbn.OptionError, match="'b' is not optional"):
        kerasbn.calibrate(_of_two(dict), {"a": A, "b": None})


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_dict_may_hold_more_than_the_inputs(structure):
    model = _of_two(STRUCTURES[structure])
    kerasbn.calibrate(model, {"0": A, "a": A, "b": B, "c": B})
    (norm,) = (layer for layer in model.layers if isinstance(layer, L.BatchNormalization))
    np.testing.assert_allclose(norm.moving_mean, np.concatenate([A, B], 1).mean(0), rtol=1e-4, atol=1e-6)


def test_a_generator_that_does_not_end(monkeypatch):
    monkeypatch.setattr("kerasbn.statistics.data._MOST", 5)
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield SAMPLE[:10]

    with pytest.raises(kerasbn.OptionError, match=r"not ended after 5 batches.*itertools.islice"):
        kerasbn.rewrite(_network(), data=endless())
    assert len(taken) == 6
    kerasbn.rewrite(_network(), data=itertools.islice(endless(), 7))
    kerasbn.rewrite(_network(), data=iter([SAMPLE[:10]] * 7))


def test_a_plan_names_the_kind_of_data():
    assert kerasbn.plan(_network(), data=SAMPLE).to_dict()["options"]["data"] == "ndarray"
