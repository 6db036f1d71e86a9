"""Subclassed models: traced, and refused where tracing would lose something."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from tests.helpers import assert_same_function, names, randomize


class Plain(keras.Model):
    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.first = L.Dense(units, activation="relu", name="first")
        self.dropout = L.Dropout(0.5, name="dropout")
        self.second = L.Dense(units, activation="tanh", name="second")
        self.head = L.Dense(2, name="head")

    def call(self, inputs, training=None):
        x = self.dropout(self.first(inputs), training=training)
        return self.head(self.second(x) + x)


class Terse(keras.Model):
    """As in most tutorials: the constructor takes nothing, not even a name."""

    def __init__(self):
        super().__init__()
        self.blocks = [L.Dense(6, activation="relu"), L.Dense(6, activation="tanh")]
        self.head = L.Dense(2)

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(inputs)


class Structured(Plain):
    def call(self, inputs):
        return {"out": super().call(inputs["a"]) * inputs["b"]}


class Branching(Plain):
    def call(self, inputs, training=None):
        x = self.first(inputs)
        return self.head(self.second(x) if training else x)


class Looking(Plain):
    def build(self, shape):
        self.built = True

    def call(self, inputs):
        if float(keras.ops.sum(inputs)) > 0:
            inputs = -inputs
        return super().call(inputs)


class Bare(Plain):
    def build(self, shape):
        self.scale = self.add_weight(shape=(2,), name="scale")
        super().build(shape)

    def call(self, inputs):
        return super().call(inputs) * self.scale


class Stepping(Plain):
    def train_step(self, data):
        return {}


class NoConfig(Plain):
    def __init__(self, units, extra):
        super().__init__(units)
        self.extra = extra

    def get_config(self):
        raise NotImplementedError("no config")


X = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")


def _called(model, inputs=X):
    model(inputs)
    return randomize(model)


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
def test_traced(copy, tmp_path):
    source = _called(Plain(name="plain"))
    before = [variable.numpy() for variable in source.variables]
    result = kerasbn.rewrite(source, copy=copy)
    assert {"first", "first_bn", "first_activation", "second", "second_bn", "head"} <= set(names(result).split())
    assert "dropout" not in names(result)
    assert result.name == "plain"
    assert_same_function(source, result, X)
    assert all(np.array_equal(a, b) for a, b in zip(before, source.variables, strict=True))
    result.save(tmp_path / "plain.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "plain.keras"), X, tolerance=0)


def test_a_constructor_without_arguments(recwarn):
    source = _called(Terse())
    result = kerasbn.rewrite(source)
    assert result.name == source.name
    assert {layer.name for layer in source._flatten_layers(include_self=False)} <= set(names(result).split())
    assert_same_function(source, result, X)
    assert not [str(warning.message) for warning in recwarn if "build" in str(warning.message)]


def test_structures():
    inputs = {"a": X, "b": X[:, :2]}
    source = _called(Structured(), inputs)
    result = kerasbn.rewrite(source)
    assert list(result.output) == ["out"]
    assert_same_function(source, result, inputs)


def test_the_optimizer_goes_on():
    source = Plain()
    source.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    source.fit(X, np.ones((8, 2)), verbose=0)
    result = kerasbn.rewrite(source, position="after", learning_rate_scale=5.0)
    assert float(result.optimizer.learning_rate) == pytest.approx(0.5)
    old, new = (
        {
            "/".join(weight.path.split("/")[-2:]): momentum
            for weight, momentum in zip(model.trainable_variables, model.optimizer.momentums, strict=True)
        }
        for model in (source, result)
    )
    for path in ("first/kernel", "head/bias"):
        np.testing.assert_array_equal(new[path], old[path])
        assert np.any(np.asarray(old[path]))


REFUSED = {
    "never called": (lambda: Plain(name="p"), "'p' is a Plain; it was never called or built.*Call it on a batch"),
    "python that depends on training": (lambda: _called(Branching()), "something else in training"),
    "python that depends on values": (
        lambda: _called(Looking()),
        r"symbolic inputs, at .*test_subclassed.py:\d+ \(if float",
    ),
    "a weight of its own": (lambda: _called(Bare()), "weight '.*scale' outside of any layer"),
    "a training step": (lambda: _called(Stepping()), "overrides train_step"),
    "no configuration": (lambda: _called(NoConfig(6, object())), "made again from its configuration.*copy=False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(kerasbn.UnsupportedModelError, match=message):
        kerasbn.rewrite(make())


def test_without_a_configuration_the_layers_are_reused():
    source = _called(NoConfig(6, object()))
    assert_same_function(source, kerasbn.rewrite(source, copy=False), X)


@pytest.mark.parametrize("verb", [kerasbn.rewrite, kerasbn.fold, kerasbn.layers.from_keras])
def test_what_is_frozen_stays_frozen(verb):
    source = Plain()
    source(np.zeros((1, 5), "float32"))
    source.first.trainable = False
    source.second.kernel.trainable = False
    result = verb(source)
    assert not result.get_layer("first").trainable
    assert not result.get_layer("second").kernel.trainable
    assert result.get_layer("second").trainable
    source.trainable = False
    assert not verb(source).trainable
