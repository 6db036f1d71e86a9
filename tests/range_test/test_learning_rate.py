"""The range test leaves nothing behind, and says what it was told to."""

import random
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras.optimizers import schedules

import kerasbn
from kerasbn.range_test.learning_rate import _has_diverged
from tests.helpers import sequential

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(96, 12)).astype("float32")
Y = GENERATOR.integers(0, 3, 96)


def _compiled(optimizer="sgd", trained=True, **kwargs):
    layers = [L.Dense(16, "relu"), L.BatchNormalization(), L.Dropout(0.5, seed=3), L.GaussianNoise(0.1)]
    model = sequential(*layers)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **kwargs)
    if trained:
        model.fit(X, Y, verbose=0)
    return model


def _state(model):
    """All that training changes, as bytes."""
    return {
        "variables": [variable.numpy().tobytes() for variable in model.variables],
        "metrics": [variable.numpy().tobytes() for variable in model.metrics_variables if np.any(variable)],
        "optimizer": [variable.numpy().tobytes() for variable in model.optimizer.variables],
        "identity": (id(model.optimizer), model.optimizer.built, id(model.train_function), model.steps_per_execution),
        "python": random.getstate(),
        "numpy": repr(np.random.get_state()),
    }


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "schedule": lambda: keras.optimizers.Adam(schedules.CosineDecay(0.01, 100)),
    "function": lambda: keras.optimizers.SGD(lambda: 0.01),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "fresh"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_model_is_as_before(optimizer, trained):
    model = _compiled(OPTIMIZERS[optimizer](), trained)
    before = _state(model)
    curve = kerasbn.find_learning_rate(model, (X, Y), steps=30)
    assert _state(model) == before
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed)
    assert len(set(curve.losses)) > 10, "a model that does not train tells nothing"


def test_training_goes_on_as_if_nothing_had_happened():
    results = []
    for look in (False, True):
        keras.utils.set_random_seed(5)
        model = _compiled(keras.optimizers.Adam(0.01))
        if look:
            kerasbn.find_learning_rate(model, (X, Y), steps=20)
        model.fit(X, Y, verbose=0)
        results.append([variable.numpy() for variable in model.variables if variable.dtype == "float32"])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_interrupt_leaves_nothing_behind():
    def interrupted():
        for start in range(0, 96, 32):
            yield X[start : start + 32], Y[start : start + 32]
        raise KeyboardInterrupt

    model = _compiled()
    before = _state(model)
    with pytest.raises(KeyboardInterrupt):
        kerasbn.find_learning_rate(model, interrupted())
    assert _state(model) == before


DATA = {
    "arrays": lambda: (X, Y),
    "with weights": lambda: (X, Y, np.ones(96)),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(32),
    "generator": lambda: ((X[:32], Y[:32]) for _ in range(15)),
}


@pytest.mark.parametrize("data", DATA)
def test_forms_of_data(data):
    curve = kerasbn.find_learning_rate(_compiled(), DATA[data](), lowest=1e-4, highest=1e-3, steps=20)
    rates = np.geomspace(1e-4, 1e-3, 20)
    np.testing.assert_allclose(curve.rates, rates[: len(curve.rates)])
    assert len(curve.rates) == (15 if data == "generator" else 20)
    assert curve.suggestion == curve.rates[int(np.argmin(curve.smoothed))]


def test_it_ends_where_the_loss_diverges():
    curve = kerasbn.find_learning_rate(_compiled(), (X, Y), highest=1e6, steps=220)
    assert curve.rates[-1] < 1e6
    assert curve.suggestion == curve.rates[-1] / 4
    assert np.all(np.isfinite(curve.losses))


COURSES = {
    "falls": (np.linspace(2.3, 0.1, 30), False),
    "stays": (np.full(30, 2.3), False),
    "stays and rises": (np.r_[np.full(20, 2.3), np.full(10, 3.5)], True),
    "falls and comes back to where it began, as units die": (np.r_[np.linspace(2.3, 0.5, 20), np.full(10, 2.3)], True),
    "falls and comes half the way back": (np.r_[np.linspace(2.3, 0.1, 20), np.full(10, 1.2)], False),
    "one bad batch": (np.r_[np.linspace(2.3, 0.5, 20), 2.3, np.full(4, 0.5)], False),
    "below zero": (np.r_[np.linspace(-1.0, -3.0, 20), np.full(10, -1.0)], True),
    "stays below zero": (np.full(30, -2.0), False),
    "not a number": (np.r_[np.linspace(2.3, 0.5, 20), np.nan], True),
    "noise": (2.3 + 0.5 * np.random.default_rng(0).normal(size=400), False),
    "falls, and is noisy": (
        np.linspace(3.0, 2.0, 400) + 0.5 * np.random.default_rng(0).normal(size=400),
        False,
    ),
    "few": (np.array([2.3, 4.0]), False),
}


@pytest.mark.parametrize("course", COURSES)
def test_when_the_loss_has_diverged(course):
    losses, diverged = COURSES[course]
    assert any(_has_diverged(list(losses[: count + 1])) for count in range(len(losses))) is diverged


def test_a_model_with_a_training_step_of_its_own():
    class Halved(keras.Model):
        def train_step(self, data):
            return {"loss": super().train_step(data)["loss"] / 2}

    inputs = keras.Input((12,))
    model = Halved(inputs, L.Dense(3, "softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=4)
    assert kerasbn.find_learning_rate(model, (X, Y), steps=20).rates


def test_plot(tmp_path):
    curve = kerasbn.find_learning_rate(_compiled(), (X, Y), steps=20)
    curve.plot(tmp_path / "curve.png")
    curve.plot(tmp_path / "curve.svg")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "suggestion" in (tmp_path / "curve.svg").read_text()


def test_plot_without_matplotlib(tmp_path, monkeypatch):
    curve = kerasbn.find_learning_rate(_compiled(), (X, Y), steps=20)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(kerasbn.OptionError, match=r"kerasbn\[plot\]"):
        curve.plot(tmp_path / "curve.png")


BAD = {
    "not compiled": (lambda: (sequential(L.Dense(4)), (X, Y), {}), "never compiled"),
    "rates": (lambda: (_compiled(), (X, Y), {"lowest": 1.0, "highest": 0.1}), "lowest=1.0"),
    "steps": (lambda: (_compiled(), (X, Y), {"steps": 3}), "steps is 3"),
    "no data": (lambda: (_compiled(), (X[:0], Y[:0]), {}), "holds no batch"),
    "too little data": (lambda: (_compiled(), iter([(X, Y)]), {}), "ended after 1 batches"),
    "another kind": (lambda: (_compiled(), object(), {}), "cannot be taken batch by batch"),
    "always diverging": (lambda: (_compiled(), (X, Y), {"lowest": 1e8, "highest": 1e12}), "diverges"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_tested(case):
    model, data, options = BAD[case][0]()
    with pytest.raises(kerasbn.OptionError, match=BAD[case][1]):
        kerasbn.find_learning_rate(model, data, **options)
