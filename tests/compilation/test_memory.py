"""What an optimizer has learned: a rewrite that changes nothing changes nothing of the course of training."""

import inspect
import itertools

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn.layers import BatchNormalizedRNN
from tests.helpers import sequential, snapshot

GENERATOR = np.random.default_rng(3)
INPUTS = GENERATOR.normal(size=(32, 12)).astype("float32")
LABELS = GENERATOR.integers(0, 3, 32)

KINDS = {
    name: kind
    for name, kind in inspect.getmembers(keras.optimizers, inspect.isclass)
    if issubclass(kind, keras.optimizers.Optimizer) and kind is not keras.optimizers.Optimizer
}


def of_kind(name, **arguments):
    """An optimizer of each of Keras's classes."""
    if name == "LossScaleOptimizer":
        inner = keras.optimizers.Adam(0.01, **arguments)
        return KINDS[name](inner, initial_scale=2.0**10, dynamic_growth_steps=2)
    if name == "MultiOptimizer":
        sgd, adam = keras.optimizers.SGD(0.01, momentum=0.9, **arguments), keras.optimizers.Adam(0.01, **arguments)
        return KINDS[name](keras.optimizers.OptimizerMap(sgd, {".*head/.*": adam}))
    return KINDS[name](learning_rate=0.01, **arguments)


class WithCounter(keras.optimizers.SGD):
    """An optimizer of the user's own: a dictionary of slots, and a variable that is made after them."""

    def build(self, variables):
        super().build(variables)
        self.means = {
            self._var_key(variable): self.add_variable_from_reference(variable, name="mean", initializer="ones")
            for variable in variables
        }
        self.total = self.add_variable((), name="total")

    def update_step(self, gradient, variable, learning_rate):
        mean = self.means[self._var_key(variable)]
        self.assign_add(self.total, 1.0)
        self.assign(mean, 0.9 * mean + 0.1 * gradient)
        self.assign_sub(variable, learning_rate * mean / keras.ops.sqrt(self.total))


class WithPairs(keras.optimizers.SGD):
    """An optimizer that keeps two slots for each weight, all in one list."""

    def build(self, variables):
        super().build(variables)
        self.pairs = [self.add_variable_from_reference(v, name=name) for v in variables for name in ("one", "other")]


SETTINGS = {
    "plain": {},
    "use_ema": {"use_ema": True, "ema_momentum": 0.9},
    "accumulation": {"gradient_accumulation_steps": 2},
    "clipnorm": {"clipnorm": 0.01},
    "weight decay": {"weight_decay": 0.1},
}


def _network(*layers):
    # Ahead of a normalization a bias has no gradient but noise, which some optimizers scale up.
    model = sequential(L.Dense(8, name="a", use_bias=not layers), *layers, L.Activation("tanh"), L.Dropout(0.3, seed=3))
    model.summary(print_fn=lambda *_, **__: None)
    return model


def _trained(model, optimizer):
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    _train(model, steps=3)
    return model


def _train(model, steps=4):
    for _ in range(steps):
        model.train_on_batch(INPUTS, LABELS)


VERBS = {
    "rewrite": ((), lambda model: kerasbn.rewrite(model, position="none", dropout="none")),
    "rewrite, sharing nothing": ((), lambda model: kerasbn.plan(model, position="none", dropout="none").apply()),
    "fold": ((), kerasbn.fold),
    "from_keras": ((L.BatchNormalization,), kerasbn.layers.from_keras),
    "to_keras": ((kerasbn.layers.BatchNormalization,), kerasbn.layers.to_keras),
}


def _assert_same_course(source, result, tolerance=0.0):
    before = [weight.numpy() for weight in source.weights]
    for model in (source, result):
        keras.utils.set_random_seed(1)
        _train(model)
    assert any(np.any(old != new.numpy()) for old, new in zip(before, source.weights, strict=True))
    for one, other in zip(source.weights, result.weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_course_of_training_is_followed(kind, verb):
    layers, change = VERBS[verb]
    source = _trained(_network(*(layer() for layer in layers)), of_kind(kind))
    _assert_same_course(source, change(source), tolerance=2e-5 if layers else 0.0)


@pytest.mark.tensorflow  # JAX compiles the loops of each step anew
def test_the_course_of_normalized_recurrent_layers_is_followed():
    both = L.Bidirectional(BatchNormalizedRNN(L.LSTM(4, return_sequences=True, dropout=0.2, seed=3)))
    stack = BatchNormalizedRNN(L.RNN([L.GRUCell(3), L.SimpleRNNCell(4)]), L.BatchNormalization())
    source = _trained(sequential(L.Reshape((4, 3)), both, stack), keras.optimizers.Adam(0.01))
    before = snapshot(source)
    result = kerasbn.rewrite(source, position="none", dropout="none")
    assert snapshot(source) == before
    assert type(result.layers[1].forward_layer) is type(result.layers[2]) is BatchNormalizedRNN
    _assert_same_course(source, result)


def _under_each_setting():
    """All; the settings are the base class's, so that few optimizers have to do unless time allows."""
    for kind, setting in itertools.product(KINDS, SETTINGS):
        if setting != "plain":
            usual = kind in ("SGD", "Adam", "LossScaleOptimizer", "MultiOptimizer")
            yield pytest.param(kind, setting, marks=() if usual else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "setting"), _under_each_setting())
def test_the_course_of_training_is_followed_under_each_setting(kind, setting):
    source = _trained(_network(), of_kind(kind, **SETTINGS[setting]))
    _assert_same_course(source, kerasbn.rewrite(source, position="none", dropout="none"))


def test_the_course_of_an_optimizer_of_the_users_own_is_followed():
    source = _trained(_network(), WithCounter(0.1))
    _assert_same_course(source, kerasbn.rewrite(source, position="none", dropout="none"))


def test_what_cannot_be_told_apart_is_refused():
    source = _trained(_network(), WithPairs(0.1))
    with pytest.raises(kerasbn.UnsupportedModelError, match="compile the model with a new one first"):
        kerasbn.rewrite(source)
    source.compile(WithPairs(0.1), "sparse_categorical_crossentropy")
    kerasbn.rewrite(source)


@pytest.mark.parametrize(("kind", "setting"), itertools.product(KINDS, ["plain", "use_ema"]))
def test_what_is_known_of_the_weights_that_live_on_is_kept(kind, setting):
    source = _trained(_network(), of_kind(kind, **SETTINGS[setting]))
    result = kerasbn.rewrite(source, position="after")
    kept = [variable.numpy() for variable in source.optimizer.variables if np.any(variable.numpy())]
    got = [variable.numpy() for variable in result.optimizer.variables]
    for value in kept:
        assert any(np.array_equal(value, other) for other in got)


@pytest.mark.parametrize("kind", KINDS)
def test_averages_of_new_weights_start_from_the_weights(kind):
    source = _trained(_network(), of_kind(kind, **SETTINGS["use_ema"]))
    result = kerasbn.rewrite(source, position="after")
    (leaf,) = {
        leaf
        for leaf in [getattr(result.optimizer, "inner_optimizer", result.optimizer)]
        for leaf in getattr(leaf, "optimizers", [leaf])
        if any("a_bn" in weight.path for weight in leaf._trainable_variables)
    }
    averages = zip(leaf._trainable_variables, leaf._model_variables_moving_average, strict=True)
    (gamma,) = [average for weight, average in averages if weight.path.endswith("gamma")]
    np.testing.assert_array_equal(gamma, np.ones(8))


@pytest.mark.parametrize("excluded", ["a weight", "a name"])
@pytest.mark.parametrize("steps", [0, 2])
def test_what_is_excluded_from_weight_decay_stays_so(excluded, steps):
    source, optimizer = _network(), keras.optimizers.AdamW(0.01, weight_decay=5.0)
    kernel = source.get_layer("a").kernel
    optimizer.exclude_from_weight_decay(**({"var_list": [kernel]} if excluded == "a weight" else {"var_names": ["k"]}))
    source.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    _train(source, steps)
    _assert_same_course(source, kerasbn.rewrite(source, position="none", dropout="none"))


def test_a_weight_that_was_frozen_meanwhile_can_be_trained_again():
    source = _trained(_network(), keras.optimizers.Adam(0.01))
    source.get_layer("a").trainable = False
    result = kerasbn.rewrite(source, position="none", dropout="none")
    for model in (source, result):
        model.get_layer("a").trainable = True
    _assert_same_course(source, result)


@pytest.mark.skipif("MultiOptimizer" not in KINDS, reason="Keras 3.14 has none")
def test_each_weight_stays_with_its_optimizer_where_its_path_changes():
    @keras.saving.register_keras_serializable("tests.memory")
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = L.Dense(8, activation="relu", name="inner")

        def call(self, inputs):
            return self.inner(inputs)

    sgd, adam = keras.optimizers.SGD(0.01, momentum=0.9), keras.optimizers.Adam(0.01)
    chosen = keras.optimizers.OptimizerMap(sgd, {"stage/block/.*": adam})
    inputs = keras.Input((12,))
    inner = keras.Sequential([keras.Input((12,)), Block(name="block")], name="stage")
    source = keras.Model(inputs, L.Dense(3, activation="softmax")(inner(inputs)))
    _trained(source, keras.optimizers.MultiOptimizer(chosen))
    result = kerasbn.rewrite(source, position="after")
    of_adam = result.optimizer.optimizers[0]
    assert {weight.path.split("/")[-2] for weight in of_adam._trainable_variables} >= {"inner"}


@pytest.mark.parametrize("attribute", ["run_eagerly", "jit_compile", "steps_per_execution"])
def test_what_was_set_after_compile_is_kept(attribute):
    source = _network()
    source.compile("sgd", "mse", jit_compile=False)
    value = 3 if attribute == "steps_per_execution" else True
    setattr(source, attribute, value)
    assert getattr(kerasbn.rewrite(source), attribute) == value
