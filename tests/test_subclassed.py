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


class Deferred(keras.Model):
    """With a Sequential that has no input."""

    def __init__(self):
        super().__init__()
        self.body = keras.Sequential([L.Dense(6, activation="relu"), L.BatchNormalization(), L.Dense(6)])
        self.head = L.Dense(2)

    def call(self, inputs):
        return self.head(self.body(inputs))


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


class Scaling(Plain):
    def call(self, inputs, training=None):
        return self.head(self.first(inputs) * (0.5 if training else 1.0))


class Flipping(Plain):
    def call(self, inputs, training=None):
        return self.head(keras.ops.flip(self.first(inputs), axis=0 if training else 1))


class Telling(Plain):
    def __init__(self):
        super().__init__()
        self.normalization = L.BatchNormalization(name="normalization")

    def call(self, inputs, training=None):
        return self.head(self.normalization(self.first(inputs), training=False))


class Paired(Plain):
    def call(self, inputs, other):
        return super().call(inputs) + other


class Regularized(Plain):
    def call(self, inputs):
        x = self.first(inputs)
        self.add_loss(keras.ops.mean(x))
        return self.head(x)


class Noisy(Plain):
    def call(self, inputs):
        return self.head(self.first(inputs) + keras.random.normal((6,)))


class WithDefault(Plain):
    """As in published networks for face detection, which call `build()` in their constructor."""

    def build(self, input_shape=(None, 5)):
        super().build(input_shape)


class ByHand(Plain):
    """Keras records no shapes for a class that builds its layers itself."""

    def build(self, input_shape=None):
        self.first.build((None, 5))
        self.second.build((None, 6))
        self.head.build((None, 6))
        self.built = True


class Table(keras.Model):
    """A model of ids: what it does first with its inputs, then a small network."""

    def __init__(self, *lookups, **kwargs):
        super().__init__(**kwargs)
        self.lookups = lookups
        self.hidden = L.Dense(4, activation="relu", name="hidden")
        self.head = L.Dense(2, name="head")

    def call(self, inputs):
        for lookup in self.lookups:
            inputs = lookup(inputs)
        return self.head(self.hidden(keras.ops.mean(inputs, axis=1)))

    def get_config(self):
        return {"lookups": [keras.saving.serialize_keras_object(each) for each in self.lookups]}

    @classmethod
    def from_config(cls, config):
        return cls(*map(keras.saving.deserialize_keras_object, config["lookups"]))


@keras.saving.register_keras_serializable("tests.subclassed")
class Embedded(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = L.Embedding(3, 4)

    def build(self, input_shape):
        self.table.build(input_shape)

    def call(self, inputs):
        return self.table(inputs)


class Several(keras.Model):
    """A model of a dictionary of inputs, of three kinds."""

    def __init__(self):
        super().__init__()
        self.table = L.Embedding(3, 4)
        self.lookup = L.StringLookup(vocabulary=["u", "v"], output_mode="one_hot")
        self.hidden = L.Dense(4, activation="relu", name="hidden")
        self.head = L.Dense(2, name="head")

    def call(self, inputs):
        words = keras.ops.cast(self.lookup(inputs["word"]), "float32")
        return self.head(self.hidden(keras.ops.concatenate([self.table(inputs["id"]), inputs["x"], words], axis=-1)))


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


HOW = {
    "called": lambda model: model(X),
    "predicted": lambda model: model.predict(X, verbose=0),
    "built": lambda model: model.build((None, 5)),
    "trained": lambda model: model.fit(X, X[:, :2], verbose=0),
}


@pytest.mark.parametrize("how", HOW)
def test_a_sequential_inside_that_was_built_by_its_first_call(how):
    """Keras gives that the size of the batch that it was called on."""
    model = Deferred()
    model.compile("sgd", "mse")
    HOW[how](model)
    model(X)
    randomize(model)
    for result in (kerasbn.rewrite(model), kerasbn.fold(model)):
        assert_same_function(model, result, X)
        assert result.input_shape == (None, 5)


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


def test_layers_that_keras_never_lets_train_are_told():
    inputs = {"a": X, "b": X[:, :2]}
    (note,) = kerasbn.plan(_called(Structured(), inputs)).notes
    assert note.startswith("The call of Structured takes no training, so that Keras never lets dropout train")
    assert not kerasbn.plan(_called(Plain())).notes
    assert not kerasbn.plan(_called(Terse())).notes


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
        assert np.any(keras.ops.convert_to_numpy(old[path]))


def _called_on_two(model):
    model(X, X[:, :2])
    return model


def _built_without_shapes():
    model = ByHand()
    model.build()
    return model


REFUSED = {
    "never called": (lambda: Plain(name="p"), "'p' is a Plain; it was never called or built.*Call it on a batch"),
    "python that depends on training": (lambda: _called(Branching()), "something else in training"),
    "python that depends on values": (
        lambda: _called(Looking()),
        r"symbolic inputs, at .*test_subclassed.py:\d+ \(if float",
    ),
    "a weight of its own": (lambda: _called(Bare()), "weight '.*scale' outside of any layer"),
    "a training step": (lambda: _called(Stepping()), "overrides train_step"),
    "a number that depends on training": (lambda: _called(Scaling()), "something else once it is traced, in training"),
    "an axis that depends on training": (lambda: _called(Flipping()), "something else once it is traced, in training"),
    "layers told not to train": (lambda: _called(Telling()), "calls 'normalization' with training=False"),
    "two arguments": (lambda: _called_on_two(Paired()), "takes inputs, other in its call"),
    "losses": (lambda: _called(Regularized()), r"adds losses in its call.*test_subclassed.py"),
    "noise": (lambda: _called(Noisy()), "something else once it is traced, at inference"),
    "unknown inputs": (lambda: _called(_built_without_shapes()), r"without telling for which inputs.*inputs=x"),
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


def test_a_build_without_arguments():
    source = WithDefault()
    source.build()
    result = kerasbn.rewrite(randomize(source))
    assert result.input.shape == (None, 5)
    assert_same_function(source, result, X)


@pytest.mark.parametrize("option", ["inputs", "data"])
def test_inputs_of_which_nothing_is_recorded(option):
    source = randomize(_built_without_shapes())
    assert_same_function(source, kerasbn.rewrite(source, **{option: X}), X, amplification=1e-4)
    assert_same_function(source, kerasbn.fold(source, inputs=X), X)


IDS = np.random.default_rng(1).integers(0, 3, (8, 7))
LARGE = np.array([[123456789, 123456791], [5, 123456791]])
KINDS = {
    "indices": (lambda: Table(L.Embedding(3, 4)), IDS, "int32"),
    "indices inside another layer": (lambda: Table(Embedded()), IDS, "int32"),
    "large integers": (
        lambda: Table(L.IntegerLookup(vocabulary=[123456789, 123456791]), L.Embedding(4, 4)),
        LARGE,
        "int64",
    ),
    "words": (
        lambda: Table(L.StringLookup(vocabulary=["cat", "dog"], num_oov_indices=0), L.Embedding(2, 4)),
        [["cat", "dog"], ["dog", "dog"]],
        "string",
    ),
    "text": (
        lambda: Table(L.TextVectorization(vocabulary=["cat", "dog"], output_sequence_length=4), L.Embedding(4, 4)),
        [["a cat"], ["dog dog"]],
        "string",
    ),
}


@pytest.mark.parametrize("example", [False, True], ids=["found", "given"])
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_are_no_real_numbers(kind, example):
    make, inputs, dtype = KINDS[kind]
    inputs = _strings(inputs) if dtype == "string" else inputs
    source = _called(make(), inputs)
    result = kerasbn.rewrite(source, inputs=inputs if example else None)
    assert result.input.dtype == ("int64" if example and dtype == "int32" else dtype)
    assert_same_function(source, result, inputs)


def test_inputs_of_several_kinds():
    inputs = {"id": keras.ops.array([0, 2, 1]), "x": keras.ops.array(X[:3]), "word": _strings(["u", "w", "v"])}
    source = _called(Several(), inputs)
    result = kerasbn.rewrite(source, inputs=inputs, copy=True)
    found = kerasbn.rewrite(source)
    assert {name: tensor.dtype for name, tensor in found.input.items()} == {
        "id": "int32",
        "x": "float32",
        "word": "string",
    }
    assert found.input.keys() == result.input.keys()
    assert_same_function(source, found, inputs)


def _strings(values):
    import tensorflow as tf

    return tf.constant(values)


class Heads(keras.Model):
    """Several outputs, of which only the call knows the structure."""

    def __init__(self, structure, **kwargs):
        super().__init__(**kwargs)
        self.structure = structure
        self.body = L.Dense(6, activation="relu", name="body")
        self.one, self.other = L.Dense(2, name="one"), L.Dense(2, name="other")

    def get_config(self):
        return {**super().get_config(), "structure": self.structure}

    def call(self, inputs):
        x = self.body(inputs)
        return STRUCTURES[self.structure](self.one(x), self.other(x))


STRUCTURES = {
    "list": lambda one, other: [one, other],
    "tuple": lambda one, other: (one, other),
    "dict": lambda one, other: {"a": one, "b": other},
}


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_logs_keep_their_names(structure, again):
    source = Heads(structure)
    x, y = np.ones((8, 4), "float32"), STRUCTURES[structure](np.zeros((8, 2)), np.zeros((8, 2)))
    source(x)
    source.compile("sgd", "mse", metrics=STRUCTURES[structure](["mae"], ["mse"]))
    result = kerasbn.rewrite(source, position="none", dropout="none")
    if again:
        result = kerasbn.rewrite(result, position="none", dropout="none")
    assert list(result.output_names) == ["one", "other"]
    expected = source.fit(x, y, validation_data=(x, y), verbose=0).history
    got = result.fit(x, y, validation_data=(x, y), verbose=0).history
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert got[name] == pytest.approx(values, rel=1e-4), name
