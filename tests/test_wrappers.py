"""`TimeDistributed` applies one layer or network to every step: what it wraps is what is looked at."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, names, randomize, sequential, snapshot

VIDEO, SEQUENCE = (3, 8, 8, 4), (5, 6)
STEPS = L.TimeDistributed

CHAINS = {
    "dense": (
        lambda: [STEPS(L.Dense(8, activation="relu", name="inner"), name="a")],
        SEQUENCE,
        {"before": "a a_bn a_activation flat head", "after": "a a_bn flat head"},
    ),
    "convolution": (
        lambda: [STEPS(L.Conv2D(6, 3, activation="relu"), name="a")],
        VIDEO,
        {"before": "a a_bn a_activation flat head", "after": "a a_bn flat head"},
    ),
    "no bias": (
        lambda: [STEPS(L.DepthwiseConv2D(3, use_bias=False, activation="tanh"), name="a")],
        VIDEO,
        {"before": "a a_bn a_activation flat head", "auto": "a a_bn flat head"},
    ),
    "wrapped twice": (
        lambda: [STEPS(STEPS(L.Dense(8, activation="relu")), name="a")],
        VIDEO,
        {"before": "a a_bn a_activation flat head", "after": "a a_bn flat head"},
    ),
    "activation wrapped as well": (
        lambda: [STEPS(L.Dense(8), name="a"), STEPS(L.Activation("tanh"), name="f")],
        SEQUENCE,
        {"before": "a a_bn f flat head", "after": "a f a_bn flat head", "auto": "a f a_bn flat head"},
    ),
    "pooled": (
        lambda: [STEPS(L.Conv2D(6, 3), name="a"), STEPS(L.MaxPooling2D(2), name="p"), L.ReLU(name="f")],
        VIDEO,
        {"before": "a a_bn p f flat head", "after": "a p f a_bn flat head"},
    ),
    "normalized already": (
        lambda: [STEPS(L.Dense(8), name="a"), STEPS(L.BatchNormalization(), name="n"), L.ReLU(name="f")],
        SEQUENCE,
        {"before": "a n f flat head", "after": "a n f flat head"},
    ),
}


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
@pytest.mark.parametrize(("chain", "position"), [(key, position) for key in CHAINS for position in CHAINS[key][2]])
def test_chain(chain, position, copy):
    make, shape, expected = CHAINS[chain]
    source = sequential(*make(), L.Flatten(name="flat"), shape=shape)
    before = snapshot(source)
    result = kerasbn.rewrite(source, position=position, copy=copy)
    assert names(result) == expected[position]
    assert_same_function(source, result)
    if copy:
        assert snapshot(source) == before


def test_the_bias_of_the_wrapped_layer_becomes_beta():
    source = sequential(STEPS(L.Dense(8, activation="relu"), name="a"), L.Flatten(), shape=SEQUENCE)
    result = kerasbn.rewrite(source)
    assert result.get_layer("a").layer.bias is None
    np.testing.assert_array_equal(result.get_layer("a_bn").beta, source.get_layer("a").layer.bias)


def test_the_axis_of_the_channels_lies_behind_that_of_the_steps():
    source = keras.Sequential(
        [
            keras.Input((3, 4, 8, 8)),
            STEPS(L.DepthwiseConv2D(1, data_format="channels_first"), name="a"),
            STEPS(L.Flatten()),
            L.Dense(2),
        ]
    )
    assert kerasbn.rewrite(source).get_layer("a_bn").axis == 2


def test_a_mask_reaches_the_normalization():
    inputs = keras.Input((5, 6), name="in")
    x = STEPS(L.Dense(8, activation="relu"), name="a")(L.Masking(name="mask")(inputs))
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(L.LSTM(4, name="rnn")(x))))
    result = kerasbn.rewrite(source)
    padded = np.random.default_rng(0).normal(3, 1, (16, 5, 6)).astype("float32")
    padded[:, 3:] = 0
    assert_same_function(source, result, padded)
    result(padded, training=True)
    steps = keras.ops.convert_to_numpy(result.get_layer("a")(padded[:, :3])).reshape(-1, 8)
    np.testing.assert_allclose(result.get_layer("a_bn").moving_mean, steps.mean(0), rtol=1e-4, atol=1e-6)


def test_saved_and_loaded(tmp_path):
    source = sequential(STEPS(L.Conv2D(6, 3, activation="relu"), name="a"), L.Flatten(), shape=VIDEO)
    result = kerasbn.rewrite(source)
    result.save(tmp_path / "model.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "model.keras"), tolerance=0)


def network(*more):
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            L.Conv2D(6, 3, activation="relu", name="c"),
            L.BatchNormalization(name="n"),
            L.Dropout(0.5, name="drop", seed=1),
            L.Conv2D(6, 3, activation="tanh", name="d"),
            L.GlobalAveragePooling2D(name="pool"),
            *more,
        ],
        name="net",
    )


def of_network():
    return sequential(STEPS(network(), name="a"), L.Flatten(name="flat"), shape=VIDEO)


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
def test_a_network_on_every_step(copy, tmp_path):
    source = of_network()
    before = snapshot(source)
    plan = kerasbn.plan(source, copy=copy)
    assert [edit.site for edit in plan.edits] == ["a/net/drop#0", "a/net/d#0"]
    result = plan.apply()
    assert names(result) == "a flat head"
    assert names(result.get_layer("a").layer) == "c n d d_bn pool"
    assert_same_function(source, result)
    assert snapshot(source) == before
    result.save(tmp_path / "model.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "model.keras"), tolerance=0)
    calibrated = kerasbn.calibrate(result, np.random.default_rng(0).normal(2, 3, (9, *VIDEO)).astype("float32"))
    folded = kerasbn.fold(calibrated)
    assert names(folded.get_layer("a").layer) == "c d d_bn pool"
    assert_same_function(calibrated, folded, tolerance=1e-4)


def test_a_network_on_every_step_trains_on_as_the_source():
    source = of_network()
    source.compile(keras.optimizers.Adam(0.01), "mse")
    images, targets = np.ones((4, *VIDEO), "float32"), np.ones((4, *source.output_shape[1:]), "float32")
    source.fit(images, targets, verbose=0)
    result = kerasbn.rewrite(source, position="none", dropout="none")
    for model in (source, result):
        model.fit(images, targets, epochs=2, shuffle=False, verbose=0)
    assert_same_function(source, result)


def test_statistics_of_a_network_on_every_step():
    source = sequential(STEPS(network(), name="a"), L.Flatten(name="flat"), shape=VIDEO)
    data = np.random.default_rng(0).normal(2, 3, (9, *VIDEO)).astype("float32")
    kerasbn.calibrate(source, data)
    net = source.get_layer("a").layer
    steps = keras.ops.convert_to_numpy(net.layers[0](data.reshape(-1, *VIDEO[1:])))
    np.testing.assert_allclose(net.get_layer("n").moving_mean, steps.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(net.get_layer("n").moving_variance, steps.var((0, 1, 2), ddof=1), rtol=1e-4)


def test_what_a_network_on_every_step_ends_in_becomes_the_output():
    source = keras.Sequential([keras.Input(VIDEO), STEPS(network(L.Dense(3, name="last")), name="a")])
    assert {skip.site: skip.reason for skip in kerasbn.plan(source).skips}["a/net/last#0"] is Reason.OUTPUT


def masked():
    inputs = keras.Input((5, 6), name="in")
    net = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu")])
    x = STEPS(net, name="a")(L.Masking(name="mask")(inputs))
    return randomize(keras.Model(inputs, L.Dense(2, name="head")(L.LSTM(4, name="rnn")(x))))


OPAQUE = {
    "a network where steps are masked": masked,
    "a network on an open number of steps": lambda: sequential(
        STEPS(keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu")]), name="a"),
        L.GlobalAveragePooling1D(),
        shape=(None, 6),
    ),
    "recurrent": lambda: sequential(L.Bidirectional(L.LSTM(4), name="a"), shape=SEQUENCE),
}


@pytest.mark.parametrize("case", OPAQUE)
def test_other_wrapped_layers_are_carried_over(case):
    source = OPAQUE[case]()
    plan = kerasbn.plan(source)
    reason = Reason.RECURRENT if case == "recurrent" else Reason.OPAQUE
    assert {skip.site: skip.reason for skip in plan.skips}["a#0"] == reason
    assert_same_function(source, plan.apply())
