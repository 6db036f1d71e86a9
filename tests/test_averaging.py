"""One model of several."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn.arrays import array_of
from tests.helpers import inference, randomize, snapshot

DATA = np.random.default_rng(0).normal(2, 3, (40, 6)).astype("float32")


def _model(seed, width=5):
    chain = [L.Dense(width, name="d"), L.BatchNormalization(name="bn"), L.ReLU(), L.Dropout(0.5), L.Dense(2)]
    model = randomize(keras.Sequential([keras.Input((6,)), *chain], name="net"), seed)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def _assert_average(result, members):
    for weight, *own in zip(result.weights, *(each.weights for each in members), strict=True):
        if weight.name not in ("moving_mean", "moving_variance"):
            np.testing.assert_allclose(weight, np.mean([array_of(each) for each in own], 0), rtol=1e-6)
    before = [weight.numpy() for weight in result.weights]
    kerasbn.calibrate(result, DATA)
    for weight, value in zip(result.weights, before, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-6)


def test_the_mean_of_the_weights_with_statistics_that_are_measured():
    members = [_model(seed) for seed in range(3)]
    before = [snapshot(each) for each in members]
    result = kerasbn.average(members, DATA)
    _assert_average(result, members)
    assert [snapshot(each) for each in members] == before
    assert result.name == "net"
    assert float(result.optimizer.learning_rate) == pytest.approx(0.01)


def test_files(tmp_path):
    members = [_model(seed) for seed in range(2)]
    for number, each in enumerate(members):
        each.save(tmp_path / f"{number}.keras")
    _assert_average(kerasbn.average([*tmp_path.iterdir()], DATA), members)


def test_one_alone_is_a_copy():
    member = _model(0)
    result = kerasbn.average([member], DATA)
    kerasbn.calibrate(member, DATA)
    np.testing.assert_array_equal(inference(result, DATA), inference(member, DATA))


def test_moments_that_wait_in_the_members_are_not_those_of_the_result():
    """Statistics of several batches at once, of which members have seen a few."""
    members = []
    for steps in (2, 3):
        norm = kerasbn.layers.BatchNormalization(name="bn", accumulate=4, momentum=0.0)
        member = keras.Sequential([keras.Input((6,)), L.Dense(3), norm, L.Dense(1)])
        for _ in range(steps):
            member(100 * DATA, training=True)
        members.append(member)
    result = kerasbn.average(members, DATA)
    measured = [weight.numpy() for weight in result.non_trainable_weights]
    for _ in range(4):
        result(DATA, training=True)
    for weight, value in zip(result.non_trainable_weights, measured, strict=True):
        np.testing.assert_allclose(weight, value, rtol=0.05, atol=1e-6)


# What is averaged, and what the message names.
REFUSED = {
    "nothing": (list, "list of models"),
    "a path alone": (lambda: "model.keras", "list of models"),
    "another width": (lambda: [_model(0), _model(1, width=4)], "number 2, 'net'.*'net/d/kernel' has another shape"),
    "another number": (lambda: [_model(0), keras.Sequential([keras.Input((6,)), L.Dense(5)])], "not as many"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_averaged(case):
    make, message = REFUSED[case]
    with pytest.raises(kerasbn.OptionError, match=message):
        kerasbn.average(make(), DATA)
