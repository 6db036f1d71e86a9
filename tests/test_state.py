"""What a layer holds besides its configuration comes along: a rewrite that changes nothing changes nothing."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from tests.helpers import assert_same_function, randomize

GENERATOR = np.random.default_rng(0)
VECTORS = GENERATOR.normal(size=(10, 12)).astype("float32")


def _unchanged(*layers, inputs=VECTORS):
    """A model of these layers, and what a rewrite that changes nothing makes of it."""
    dtype = "string" if isinstance(inputs, list) else str(inputs.dtype)
    shape = np.shape(inputs)[1:]
    source = randomize(keras.Sequential([keras.Input(shape, dtype=dtype), *layers]))
    result = kerasbn.rewrite(source, position="none", dropout="none")
    given = keras.ops.convert_to_tensor(inputs) if dtype != "string" else _strings(inputs)
    assert_same_function(source, result, given, tolerance=0.0)
    return source, result


def _strings(values):
    import tensorflow as tf

    return tf.constant(values)


class Annealed(L.Layer):
    """A layer with attributes that change as it is trained."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = 1.0
        self._steps = [0]

    def call(self, inputs):
        return inputs * self.scale


def _annealed():
    layer = Annealed()
    layer.scale, layer._steps = 3.0, [5]
    return layer


def _rematerialized():
    with keras.RematScope(mode="full"):
        return L.Dense(3)


def _with_lora(layer, shape):
    layer.build(shape)
    layer.enable_lora(2, lora_alpha=8)
    return layer


def _without_autocast():
    layer = L.Activation("relu")
    layer.autocast = False
    return layer


ATTRIBUTES = {
    "set after it was made": (_annealed, VECTORS, ["scale", "_steps"]),
    "autocast": (_without_autocast, VECTORS, ["autocast"]),
    "alpha of a Dense": (lambda: _with_lora(L.Dense(4), (None, 12)), VECTORS, ["lora_alpha", "lora_rank"]),
    "alpha of a Conv1D": (
        lambda: _with_lora(L.Conv1D(4, 3), (None, 6, 2)),
        VECTORS.reshape(10, 6, 2),
        ["lora_alpha", "lora_rank"],
    ),
    "alpha of an Embedding": (
        lambda: _with_lora(L.Embedding(9, 4), (None, 6)),
        GENERATOR.integers(0, 9, (10, 6)).astype("int32"),
        ["lora_alpha", "lora_rank"],
    ),
    "recomputed activations": (_rematerialized, VECTORS, ["_remat_mode"]),
}


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_attributes(attribute):
    make, inputs, names = ATTRIBUTES[attribute]
    source, result = _unchanged(make(), inputs=inputs)
    one, other = source.layers[0], result.layers[0]
    assert one is not other
    assert {name: getattr(other, name) for name in names} == {name: getattr(one, name) for name in names}
    assert [weight.trainable for weight in result.weights] == [weight.trainable for weight in source.weights]


def _adapted(layer, data):
    layer.adapt(data)
    return layer


WORDS = ["the cat sat", "on the mat", "a dog sat", "an unknown word"]
LETTERS = [["a", "b"], ["c", "c"], ["d", "z"]]
NUMBERS = np.array([[5, 7], [123456789, 123456789], [9, 5]])
TABLES = {
    **{
        f"Discretization, {mode}": (
            lambda mode=mode: _adapted(L.Discretization(num_bins=4, output_mode=mode), VECTORS),
            VECTORS,
        )
        for mode in ("int", "one_hot", "multi_hot", "count")
    },
    **{
        f"TextVectorization, {mode}": (
            lambda mode=mode: _adapted(L.TextVectorization(output_mode=mode), WORDS[:3]),
            WORDS,
        )
        for mode in ("int", "multi_hot", "count", "tf_idf")
    },
    **{
        f"{kind.__name__}, {mode}": (
            lambda kind=kind, mode=mode, data=data: _adapted(kind(output_mode=mode), data),
            data,
        )
        for kind, data in ((L.StringLookup, LETTERS), (L.IntegerLookup, NUMBERS))
        for mode in ("int", "multi_hot", "count", "tf_idf")
    },
    "Normalization": (lambda: _adapted(L.Normalization(), 3 * VECTORS + 1), VECTORS),
    "StringLookup with weights of its own": (
        lambda: L.StringLookup(vocabulary=["a", "b", "c"], idf_weights=[0.5, 0.2, 0.1], output_mode="tf_idf"),
        LETTERS,
    ),
}


@pytest.mark.parametrize("table", TABLES)
def test_adapted_tables(table, tmp_path):
    make, inputs = TABLES[table]
    source, result = _unchanged(make(), inputs=inputs)
    result.save(tmp_path / "result.keras")
    loaded = keras.models.load_model(tmp_path / "result.keras")
    assert_same_function(source, loaded, _strings(inputs) if isinstance(inputs, list) else inputs, tolerance=0.0)


@keras.saving.register_keras_serializable("state")
class Gate(L.Layer):
    """An activation that holds a layer."""

    def build(self, shape):
        self.dense = L.Dense(shape[-1], activation="sigmoid")
        self.dense.build(shape)

    def call(self, inputs):
        return inputs * self.dense(inputs)

    def compute_output_shape(self, shape):
        return shape


ACTIVATED = {
    "dense": lambda activation: L.Dense(4, activation=activation, kernel_regularizer="l2"),
    "convolution": lambda activation: L.Conv1D(4, 3, activation=activation, kernel_regularizer="l2"),
    "steps": lambda activation: L.TimeDistributed(L.Dense(4, activation=activation, kernel_regularizer="l2")),
}
CHANGES = {
    "nothing": {"position": "none", "dropout": "none"},
    "before": {"position": "before"},
    "after": {"position": "after"},
    "weight decay": {"position": "none", "weight_decay_scale": 0.5},
}


@pytest.mark.parametrize("change", [*CHANGES, "fold"])
@pytest.mark.parametrize("activation", [L.PReLU, Gate])
@pytest.mark.parametrize("layer", ACTIVATED)
def test_an_activation_that_is_a_layer_with_weights_is_copied(layer, activation, change):
    """Keras does not build it before the first call on values, when it makes a model."""
    x = VECTORS.reshape(10, 4, 3)
    source = keras.Sequential(
        [keras.Input((4, 3)), L.BatchNormalization(), ACTIVATED[layer](activation()), L.Flatten(), L.Dense(2)]
    )
    source.compile("sgd", "mse")
    source(x)
    randomize(source)
    result = kerasbn.fold(source) if change == "fold" else kerasbn.rewrite(source, **CHANGES[change])
    assert_same_function(source, result, x, tolerance=1e-6)
    assert not {*map(id, result.weights)} & {*map(id, source.weights)}


@pytest.mark.parametrize("change", CHANGES)
def test_an_activation_that_is_a_layer_with_weights_to_come(change):
    source = keras.Sequential([keras.Input((12,)), L.Dense(4, activation=L.PReLU()), L.Dense(2)])
    source.compile("sgd", "mse")
    result = kerasbn.rewrite(source, **CHANGES[change])
    assert_same_function(source, result, VECTORS, tolerance=1e-6)
    assert not {*map(id, result.weights)} & {*map(id, source.weights)}


@keras.saving.register_keras_serializable("state")
class Scaled(L.Dense):
    """A layer with attributes that its configuration does not tell of."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = 1.0

    def call(self, inputs, training=None):
        return super().call(inputs) * self.scale


@pytest.mark.parametrize(
    "option", [{}, {"weight_decay_scale": 0.5}, {"l2": 1e-3}, {"rules": [("scaled", "before")]}], ids=str
)
def test_what_is_set_on_a_layer_that_gets_another_config(option):
    regularizer = "l2" if "weight_decay_scale" in option else None
    source = keras.Sequential(
        [keras.Input((12,)), Scaled(4, kernel_regularizer=regularizer, name="scaled"), L.Dense(2)]
    )
    source.layers[0].scale = 3.0
    source.compile("sgd", "mse")
    result = kerasbn.rewrite(source, **{"position": "none", "dropout": "none", **option})
    assert result.get_layer("scaled").scale == 3.0
    assert_same_function(source, result, VECTORS, tolerance=1e-6)


def test_what_is_set_on_layers_and_variables():
    first, second = L.Dense(4), L.Activation("relu", activity_regularizer="l2")
    source = keras.Sequential([keras.Input((12,)), first, second, L.Dense(2)])
    first.kernel.regularizer = keras.regularizers.L2(0.1)
    first.kernel.constraint = keras.constraints.NonNeg()
    first.bias.trainable = False
    source.layers[2].activity_regularizer = keras.regularizers.L1(0.1)
    result = kerasbn.rewrite(source, position="none", dropout="none")
    for model in (source, result):
        model(VECTORS)
    assert result.layers[0].kernel.regularizer is first.kernel.regularizer
    assert result.layers[0].kernel.constraint is first.kernel.constraint
    assert not result.layers[0].bias.trainable
    np.testing.assert_allclose(sum(result.losses), sum(source.losses), rtol=1e-6)


@pytest.mark.parametrize("change", [{"position": "none", "dropout": "none"}, {"position": "before"}])
def test_what_was_frozen_can_be_trained_once_it_is_thawed(change):
    source = keras.Sequential([keras.Input((12,)), L.Dense(4, activation="relu"), L.Dense(2)])
    source.layers[0].trainable = False
    result = kerasbn.rewrite(source, **change)
    dense = result.layers[0]
    assert not dense.trainable
    dense.trainable = True
    before = dense.kernel.numpy()
    result.compile("sgd", "mse")
    result.train_on_batch(VECTORS, np.ones((10, 2)))
    assert np.any(dense.kernel.numpy() != before)


class Decoder(L.Layer):
    """The transpose of a Dense layer."""

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder

    def build(self, input_shape):
        self.bias = self.add_weight(shape=(self.encoder.kernel.shape[0],), name="bias")

    def call(self, inputs):
        return keras.ops.matmul(inputs, keras.ops.transpose(self.encoder.kernel)) + self.bias

    def get_config(self):
        return {**super().get_config(), "encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "encoder": keras.saving.deserialize_keras_object(config["encoder"])})


@pytest.mark.parametrize("change", [{"position": "none"}, {"position": "after"}])
def test_copies_of_tied_layers_share_one_new_variable(change):
    inputs = keras.Input((12,))
    encoder = L.Dense(3, activation="tanh", name="encoder")
    source = randomize(keras.Model(inputs, Decoder(encoder, name="decoder")(encoder(inputs))))
    result = kerasbn.rewrite(source, **change)
    assert_same_function(source, result, tolerance=1e-5)
    assert result.get_layer("decoder").encoder.kernel is result.get_layer("encoder").kernel
    assert result.get_layer("encoder").kernel is not encoder.kernel
    result.compile("sgd", "mse")
    result.train_on_batch(VECTORS, VECTORS)
    np.testing.assert_array_equal(result.get_layer("decoder").encoder.kernel, result.get_layer("encoder").kernel)


class Counting(keras.Sequential):
    """A Sequential that counts its steps."""

    steps = 0

    def train_step(self, data):
        self.steps += 1
        return super().train_step(data)


class Sized(keras.Sequential):
    """A Sequential whose `__init__` takes something else than layers."""

    def __init__(self, units, **kwargs):
        super().__init__([keras.Input((12,)), L.Dense(units)], **kwargs)


class Weighted(keras.Model):
    """A functional model whose `train_step` uses what was set on it."""

    def train_step(self, data):
        self.counter.assign_add(self.weight)
        return super().train_step(data)


def test_a_class_of_sequential_models_is_kept():
    source = Counting([keras.Input((12,)), L.Dense(4, activation="relu"), L.Dense(2)])
    source.steps = 7
    source.compile("sgd", "mse", run_eagerly=True)
    result = kerasbn.rewrite(source)
    result.train_on_batch(VECTORS, np.ones((10, 2)))
    assert (type(result), result.steps, source.steps) == (Counting, 8, 7)


def test_a_class_of_sequential_models_that_cannot_be_kept_is_told():
    plan = kerasbn.plan(Sized(4, name="sized"))
    assert any("sized (Sized)" in note for note in plan.notes)
    assert type(plan.apply()) is keras.Sequential


def test_what_a_model_was_given_is_kept():
    inputs = keras.Input((12,))
    source = Weighted(inputs, L.Dense(2)(L.Dense(4, activation="relu")(inputs)))
    source.weight, source.counter = 2.0, keras.Variable(0.0, trainable=False)
    source.compile("sgd", "mse", run_eagerly=True)
    result = kerasbn.rewrite(source)
    result.train_on_batch(VECTORS, np.ones((10, 2)))
    assert (float(result.counter), float(source.counter)) == (2.0, 0.0)
