"""Subclassed models, which have no graph of their own: what their call does at inference is written."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from tests.exporters.cases import FORMATS, RUNNERS, assert_close, run_onnx
from tests.helpers import inference, randomize

pytestmark = pytest.mark.tensorflow

X = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")


class Plain(keras.Model):
    """Its arguments are not in its configuration."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.first = L.Dense(units, name="first")
        self.norm = L.BatchNormalization(name="norm")
        self.dropout = L.Dropout(0.5, name="dropout")
        self.head = L.Dense(2, name="head")

    def get_config(self):
        raise NotImplementedError

    def call(self, inputs, training=None):
        return self.head(self.dropout(keras.ops.relu(self.norm(self.first(inputs)))))


class Structured(Plain):
    def call(self, inputs):
        return {"out": super().call(inputs["a"]), "sum": inputs["a"] + inputs["b"]}


class Several(Plain):
    def call(self, inputs):
        x = self.first(inputs)
        return self.norm(x), self.head(x)


class Training(Plain):
    """Does something else in training, by a step of its own and in its call."""

    def train_step(self, data):
        raise NotImplementedError

    def call(self, inputs, training=None):
        if training:
            inputs = inputs + keras.random.normal(keras.ops.shape(inputs))
        return super().call(inputs)


class Helped(Plain):
    """Has a head for training alone."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.helper = L.Dense(3, name="helper")

    def call(self, inputs, training=None):
        x = super().call(inputs)
        return (x, self.helper(x)) if training or not self.built else x


class Nested(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.network = keras.Sequential([L.Dense(5), L.BatchNormalization(), L.ReLU()], name="network")

    def call(self, inputs):
        return super().call(self.network(inputs))


class Weighing(Plain):
    def build(self, shape):
        self.scale = self.add_weight(shape=(2,), name="scale")

    def call(self, inputs):
        return super().call(inputs) * self.scale


# What to export, the names of its outputs, how many normalizations are folded, and which are not.
CASES = {
    "plain": (Plain, ["head"], 1, {}),
    "structures": (Structured, ["out", "sum"], 1, {}),
    "several outputs": (Several, ["norm", "head"], 0, {"other_consumers": 1}),
    "another way of training": (Training, ["head"], 1, {}),
    "a part for training alone": (Helped, ["head"], 1, {}),
    "a network inside": (Nested, ["head"], 2, {}),
    "a weight of its own": (Weighing, ["weighing"], 0, {"own_weights": 1}),
}


def _called(kind):
    """A model, and what it is called with."""
    inputs = {"a": X, "b": 2 * X} if kind is Structured else X
    model = kind(6, name=kind.__name__.lower())
    model(inputs)
    return randomize(model), inputs


@pytest.mark.parametrize("kind", RUNNERS)
@pytest.mark.parametrize("case", CASES)
def test_served(case, kind, tmp_path):
    make, names, folded, kept = CASES[case]
    model, inputs = _called(make)
    expected = dict(zip(names, inference(model, inputs), strict=True))
    path = tmp_path / FORMATS[kind]
    report = kerasbn.export(model, path)
    assert (report.folded, report.kept) == (folded, kept)
    assert_close(expected, RUNNERS[kind](path, inputs if make is Structured else {"inputs": inputs}))


@pytest.mark.parametrize("case", [case for case in CASES if case != "a weight of its own"])
def test_a_keras_file_needs_no_class(case, tmp_path):
    model, inputs = _called(CASES[case][0])
    kerasbn.export(model, tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(inference(model, inputs), inference(loaded, inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_inputs_of_a_name_that_a_layer_has(tmp_path):
    model, inputs = _called(Plain)
    model.first.name = "inputs"
    expected = inference(model, inputs)
    kerasbn.export(model, tmp_path / "model.onnx")
    assert_close({"head": expected[0]}, run_onnx(tmp_path / "model.onnx", {"inputs_1": inputs}))


class Silent(Plain):
    call = keras.Model.call


class Looking(Plain):
    def build(self, shape):
        self.built = True

    def call(self, inputs):
        return super().call(-inputs if float(keras.ops.sum(inputs)) > 0 else inputs)


class Drawing(Plain):
    def call(self, inputs):
        return super().call(inputs + keras.random.normal(keras.ops.shape(inputs)))


REFUSED = {
    "never called": (lambda: Plain(6), "never called or built, so its inputs are not known. Call it on a batch first"),
    "no call": (lambda: Silent(6), "has no call, .*. Take the models among its attributes one by one"),
    "python that depends on values": (
        lambda: _called(Looking)[0],
        r"symbolic inputs, at .*test_subclassed.py:\d+ .*Build the same network",
    ),
    "random numbers at inference": (
        lambda: _called(Drawing)[0],
        "changes the state of 'keras.random/seed_generator_state'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    make, message = REFUSED[case]
    with pytest.raises(kerasbn.UnsupportedModelError, match=message):
        kerasbn.export(make(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
