"""Percentiles of what layers get, read back from the event files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from tensorflow.python.summary.summary_iterator import summary_iterator

import kerasbn
from kerasbn.callbacks import InputPercentiles
from kerasbn.layers import BatchNormalizedRNN
from kerasbn.statistics.percentiles import input_percentiles
from tests.helpers import randomize, snapshot

pytestmark = pytest.mark.tensorflow

BATCH = np.random.default_rng(0).normal(2, 3, (50, 6)).astype("float32")
LABELS = np.arange(50) % 3


def _network():
    block = keras.Sequential([keras.Input((8,)), L.Dense(8, name="b"), L.BatchNormalization(name="b_bn")], name="block")
    inputs = keras.Input((6,), name="in")
    x = L.Activation("tanh", name="act")(L.Dense(8, name="a")(inputs))
    x = L.Dropout(0.5, name="drop")(block(x))
    model = randomize(keras.Model(inputs, L.Dense(3, name="head")(x), name="net"))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _logged(folder):
    """`{tag: {step: value}}` of the event files in a folder."""
    found = {}
    for path in folder.iterdir():
        for event in summary_iterator(str(path)):
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return found


def _outputs_of(model, name):
    return np.asarray(keras.Model(model.input, model.get_layer(name).output)(BATCH, training=False), "float64")


def test_percentiles_are_those_of_the_inputs():
    model = _network()
    before = snapshot(model)
    got = input_percentiles(model, BATCH)
    hidden = _outputs_of(model, "a")
    inner = np.asarray(model.get_layer("block").get_layer("b")(np.tanh(hidden)))
    assert got.keys() == {"act#0", "block/b_bn#0"}
    np.testing.assert_allclose(got["act#0"], np.percentile(hidden, [15, 50, 85]), rtol=1e-5)
    np.testing.assert_allclose(got["block/b_bn#0"], np.percentile(inner, [15, 50, 85]), rtol=1e-4)
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("layers", "addresses"),
    [
        ("head", {"head#0"}),
        ("block/*", {"block/b#0", "block/b_bn#0"}),
        (["a*", "head"], {"a#0", "act#0", "head#0"}),
        (None, {"act#0", "block/b_bn#0"}),
    ],
)
def test_layers_are_chosen_by_globs(layers, addresses):
    assert input_percentiles(_network(), BATCH, layers).keys() == addresses


def test_one_channel():
    model = _network()
    got = input_percentiles(model, BATCH, "act", percentiles=(0, 100), channel=3)
    hidden = _outputs_of(model, "a")[:, 3]
    np.testing.assert_allclose(got["act#0"], [hidden.min(), hidden.max()], rtol=1e-5)


def test_the_channel_of_a_normalization_lies_along_its_axis():
    model = keras.Sequential([keras.Input((3, 5)), L.BatchNormalization(axis=1, name="bn")])
    inputs = np.arange(30.0).reshape(2, 3, 5)
    got = input_percentiles(model, inputs, percentiles=(0, 100), channel=2)
    np.testing.assert_allclose(got["bn#0"], [10, 29])


def test_a_model_that_is_called_twice_pools_its_calls():
    block = keras.Sequential([keras.Input((6,)), L.Activation("tanh", name="act")], name="block")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Add()([block(inputs), block(-10 * inputs)]))
    got = input_percentiles(model, BATCH, percentiles=(0, 100))
    both = np.concatenate([BATCH, -10 * BATCH])
    np.testing.assert_allclose(got["block/act#0"], [both.min(), both.max()])


@pytest.mark.parametrize(("options", "steps"), [({"steps": 4}, [0, 4, 8]), ({}, [0, 5, 10])])
def test_the_event_files_hold_each_log(tmp_path, options, steps):
    model = _network()
    callback = InputPercentiles(tmp_path, BATCH, **options)
    expected = {0: input_percentiles(model, BATCH)["act#0"]}
    variances = {0: np.percentile(model.get_layer("block").get_layer("b_bn").moving_variance, [15, 50, 85])}
    model.fit(BATCH, LABELS, batch_size=10, epochs=2, verbose=0, callbacks=[callback])
    if steps[-1] == 10:
        expected[10] = input_percentiles(model, BATCH)["act#0"]
        variances[10] = np.percentile(model.get_layer("block").get_layer("b_bn").moving_variance, [15, 50, 85])
    for number, percentile in enumerate((15, 50, 85)):
        logged = _logged(tmp_path / f"percentile_{percentile}")
        assert logged.keys() == {
            *("inputs/act#0", "inputs/block/b_bn#0"),
            *(f"{name}/block/b_bn" for name in ("moving_mean", "moving_variance", "gamma", "beta")),
        }
        assert all(list(values) == steps for values in logged.values())
        for step, values in expected.items():
            np.testing.assert_allclose(logged["inputs/act#0"][step], values[number], rtol=1e-5)
        for step, values in variances.items():
            np.testing.assert_allclose(logged["moving_variance/block/b_bn"][step], values[number], rtol=1e-5)


def test_normalizations_inside_of_recurrent_layers_are_logged(tmp_path):
    steps = BATCH.reshape(50, 3, 2)
    both = L.Bidirectional(BatchNormalizedRNN(L.LSTM(4), name="rnn"), name="both")
    model = keras.Sequential([keras.Input((3, 2)), both, L.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(steps, LABELS, verbose=0, callbacks=[InputPercentiles(tmp_path, steps)])
    logged = _logged(tmp_path / "percentile_50")
    paths = [f"both/{layer.name}/{layer.norms[0].name}" for layer in (both.forward_layer, both.backward_layer)]
    assert logged.keys() == {
        *(f"inputs/{path}#0" for path in paths),
        *(f"{name}/{path}" for name in ("moving_mean", "moving_variance", "gamma") for path in paths),
    }
    median = np.median(both.backward_layer.norms[0].moving_variance)
    np.testing.assert_allclose(logged[f"moving_variance/{paths[1]}"][2], median, rtol=1e-5)


def test_several_steps_in_one_go(tmp_path):
    model = _network()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), steps_per_execution=3)
    model.fit(BATCH, LABELS, batch_size=5, verbose=0, callbacks=[InputPercentiles(tmp_path, BATCH, steps=5)])
    assert list(_logged(tmp_path / "percentile_50")["inputs/act#0"]) == [0, 6, 10]


def test_training_is_the_same_with_it(tmp_path):
    weights = []
    for callbacks in ([], [InputPercentiles(tmp_path, BATCH, steps=1)]):
        keras.utils.set_random_seed(0)
        model = _network()
        model.fit(BATCH, LABELS, batch_size=10, verbose=0, callbacks=callbacks)
        weights.append([weight.numpy() for weight in model.weights])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


BAD = {
    "a glob that matches nothing": ({"layers": ["conv*"]}, r"'conv\*', which matches no layer of model 'net'"),
    "percentiles": ({"percentiles": (15, 101)}, r"percentiles is \(15, 101\)"),
    "a channel too many": ({"layers": "act", "channel": 8}, "channel is 8, but act#0 has 8 channels"),
    "data of another shape": ({"data": BATCH[:, :3]}, r"'in' has shape \(6,\), the data \(3,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case):
    options, message = BAD[case]
    with pytest.raises(kerasbn.OptionError, match=message):
        input_percentiles(_network(), **{"data": BATCH, **options})


@pytest.mark.parametrize("steps", [0, 1.5, True])
def test_bad_steps(tmp_path, steps):
    with pytest.raises(kerasbn.OptionError, match="must be a positive number of steps"):
        kerasbn.callbacks.InputPercentiles(tmp_path, BATCH, steps=steps)
