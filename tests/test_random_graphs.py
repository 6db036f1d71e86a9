"""Properties of any graph: branches, shared layers, nesting, dicts, operations, Dropout, BN already there."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from keras import layers as L

import kerasbn
from kerasbn.catalog.roles import Role, role_of
from kerasbn.graph.read import read
from tests.helpers import assert_same_function, inference, random_inputs, randomize, snapshot

WIDTH = 4
ACTIVATIONS = ["relu", "tanh", "sigmoid", "gelu", "selu", "softmax", "linear", "leaky_relu"]


def _convolved(x, activation):
    convolution = L.Conv1D(1, 3, padding="same", activation=activation)
    return L.Flatten()(convolution(L.Reshape((WIDTH, 1))(x)))


def _by_steps(x, activation):
    dense = L.TimeDistributed(L.Dense(2, activation=activation))
    return L.Flatten()(dense(L.Reshape((WIDTH // 2, 2))(x)))


# What can happen to one vector, and what to two. `c` is the composer below.
UNARY = {
    "dense": lambda c, x: L.Dense(WIDTH, use_bias=c.flip())(x),
    "dense with activation": lambda c, x: L.Dense(WIDTH, activation=c.pick(ACTIVATIONS))(x),
    "dense twice": lambda c, x: L.Dense(WIDTH)(L.Dense(WIDTH, activation=c.pick(ACTIVATIONS))(x)),
    "shared dense": lambda c, x: c.shared(x),
    "activation": lambda c, x: L.Activation(c.pick(ACTIVATIONS))(x),
    "relu operation": lambda c, x: keras.ops.relu(x),
    "tanh operation": lambda c, x: keras.ops.tanh(x),
    "arithmetic": lambda c, x: x * 0.5 + 1.0,
    "prelu": lambda c, x: L.PReLU()(x),
    "dropout": lambda c, x: L.Dropout(0.5)(x),
    "monte carlo": lambda c, x: L.Dropout(0.5)(x, training=True),
    "noise": lambda c, x: L.GaussianNoise(0.1)(x),
    "bn": lambda c, x: L.BatchNormalization(center=c.flip(), scale=c.flip())(x),
    "dense and bn": lambda c, x: L.BatchNormalization()(L.Dense(WIDTH, activation=c.pick(ACTIVATIONS))(x)),
    "shared bn": lambda c, x: c.shared_bn(x),
    "layer norm": lambda c, x: L.LayerNormalization()(x),
    "identity": lambda c, x: L.Identity()(x),
    "reshape": lambda c, x: L.Flatten()(L.Reshape((2, WIDTH // 2))(x)),
    "max pool": lambda c, x: L.Flatten()(L.MaxPooling1D(2, 1, padding="same")(L.Reshape((WIDTH, 1))(x))),
    "average pool": lambda c, x: L.Flatten()(L.AveragePooling1D(3, 1, padding="same")(L.Reshape((2, 2))(x))),
    "pad and crop": lambda c, x: L.Flatten()(L.Cropping1D((0, 1))(L.ZeroPadding1D((1, 0))(L.Reshape((2, 2))(x)))),
    "conv": lambda c, x: _convolved(x, c.pick(ACTIVATIONS)),
    "every step": lambda c, x: _by_steps(x, c.pick(ACTIVATIONS)),
    "functional within a sequential": lambda c, x: keras.Sequential([c.small(), L.Dense(WIDTH)])(x),
    "several outputs": lambda c, x: L.Add()(list(c.two(x).values())),
    "nested": lambda c, x: c.nested(x),
}
BINARY = {
    "add": lambda x, y: L.Add()([x, y]),
    "plus": lambda x, y: x + y,
    "multiply": lambda x, y: L.Multiply()([x, y]),
    "concatenate": lambda x, y: L.Dense(WIDTH)(L.Concatenate()([x, y])),
}


class Composer:
    """Builds a random model out of the choices that hypothesis draws."""

    def __init__(self, data):
        self.data = data
        self._shared = L.Dense(WIDTH, activation=self.pick(ACTIVATIONS))
        self._shared_bn = L.BatchNormalization()
        self._nested = None

    def pick(self, options):
        return self.data.draw(st.sampled_from(list(options)))

    def flip(self):
        return self.data.draw(st.booleans())

    def shared(self, x):
        return self._shared(x)

    def shared_bn(self, x):
        return self._shared_bn(self._shared(x) if self.flip() else x)

    def nested(self, x):
        if self._nested is None:
            inputs = keras.Input((WIDTH,))
            layers = [L.Dense(WIDTH, activation=self.pick(ACTIVATIONS)), L.Dropout(0.2), L.Dense(WIDTH)]
            layers += [L.BatchNormalization()] if self.flip() else []
            if self.flip():
                self._nested = keras.Sequential([inputs, *layers])
            else:
                y = inputs
                for layer in layers:
                    y = layer(y)
                self._nested = keras.Model(inputs, L.Add()([inputs, y]) if self.flip() else y)
        return self._nested(x)

    def small(self):
        inputs = keras.Input((WIDTH,))
        x = L.Dense(WIDTH, activation=self.pick(ACTIVATIONS))(inputs)
        return keras.Model(inputs, L.Add()([inputs, x]))

    def two(self, x):
        inputs = {"x": keras.Input((WIDTH,), name="x")}
        y = L.Dense(WIDTH, activation=self.pick(ACTIVATIONS))(inputs["x"])
        return keras.Model(inputs, {"low": y, "high": L.Dense(WIDTH)(y)})({"x": x})

    def model(self):
        inputs = [keras.Input((WIDTH,), name=name) for name in "pq"[: 1 + self.flip()]]
        values = list(inputs)
        for _ in range(self.data.draw(st.integers(1, 8))):
            if self.flip() or len(values) < 2:
                values.append(UNARY[self.pick(UNARY)](self, self.pick(values[-3:])))
            else:
                values.append(BINARY[self.pick(BINARY)](values[-1], self.pick(values)))
        outputs = [L.Dense(2, name="head")(values[-1])]
        if self.flip():
            outputs.append(self.pick(values[len(inputs) :]))
        if self.flip():
            outputs = {f"out{index}": output for index, output in enumerate(outputs)}
        structure = {tensor.name: tensor for tensor in inputs} if self.flip() else inputs
        return randomize(keras.Model(structure, outputs))


def _candidates(model):
    return {site.address for site in read(model).walk() if role_of(site.operation) in (Role.LINEAR, Role.ACTIVATION)}


def amplification(model, inputs):
    """30 times what a relative change of 1e-6 in the inputs does."""
    outputs, nudged = (
        inference(model, x)
        for x in (inputs, keras.tree.map_structure(lambda array: array * np.float32(1 + 1e-6), inputs))
    )
    return 30 * max(np.max(np.abs(a - b)) for a, b in zip(outputs, nudged, strict=True))


def _check(data):
    source = Composer(data).model()
    position = data.draw(st.sampled_from(["auto", "before", "after", "none"]))
    dropout = data.draw(st.sampled_from(["redundant", "all", "none"]))
    copy = data.draw(st.booleans())
    sample = random_inputs(source, batch=16, seed=2) if data.draw(st.booleans()) else None
    before = snapshot(source)
    plan = kerasbn.plan(source, position=position, dropout=dropout, copy=copy, data=sample)
    note(str(plan))
    inserted = [edit.site for edit in plan.edits if edit.kind == "insert"]
    skipped = [skip.site for skip in plan.skips]
    for site in _candidates(source):
        assert (inserted + skipped).count(site) == 1, site
    result = plan.apply()
    inputs = random_inputs(source)
    assert_same_function(source, result, inputs, amplification=amplification(source, inputs))
    if copy:
        assert snapshot(source) == before
    _check_saving(result, inputs)


def _check_saving(model, inputs):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.keras"
        model.save(path)
        assert_same_function(model, keras.models.load_model(path), inputs, tolerance=0)


def _check_folding(data):
    source = Composer(data).model()
    copy = data.draw(st.booleans())
    before = snapshot(source)
    plan = kerasbn.plan(source, fold=True, dropout="none", copy=copy)
    note(str(plan))
    settled = [change.site for change in (*plan.edits, *plan.skips)]
    for site in read(source).walk():
        if role_of(site.operation) is Role.BATCH_NORMALIZATION:
            assert settled.count(site.address) == 1, site
    inputs = random_inputs(source)
    allowed = {"tolerance": 1e-4, "amplification": amplification(source, inputs)}
    folded = plan.apply()
    assert_same_function(source, folded, inputs, **allowed)
    assert_same_function(source, kerasbn.fold(kerasbn.rewrite(source)), inputs, **allowed)
    if copy:
        assert snapshot(source) == before
    assert not kerasbn.plan(folded, fold=True, dropout="none").edits
    _check_saving(folded, inputs)


RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@settings(max_examples=80, **RELAXED)
@given(st.data())
def test_random_graphs(data):
    _check(data)


@settings(max_examples=80, **RELAXED)
@given(st.data())
def test_random_graphs_folded(data):
    _check_folding(data)


@pytest.mark.slow
@settings(max_examples=3000, **{**RELAXED, "derandomize": False})
@given(st.data())
def test_thousands_of_random_graphs_folded(data):
    _check_folding(data)


@pytest.mark.slow
@settings(max_examples=3000, **{**RELAXED, "derandomize": False})
@given(st.data())
def test_thousands_of_random_graphs(data):
    _check(data)
