"""Properties of any model in any state: what a verb does not mean to change, it does not change.

Random models (`test_random_graphs`), as functional ones, inside a Sequential and inside subclassed ones, with layers
and variables frozen, regularized and constrained at random, compiled with any of Keras's optimizers, trained for some
steps.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from keras import layers as L

import kerasbn
from tests.compilation.test_memory import KINDS, SETTINGS, of_kind
from tests.helpers import assert_same_function, random_inputs, randomize, recorded_calls, snapshot
from tests.test_random_graphs import RELAXED, WIDTH, Composer, amplification


@keras.saving.register_keras_serializable("tests.random_states")
class Holding(keras.Model):
    """A subclassed model that holds what it calls."""

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.dropout = L.Dropout(0.25, seed=4)
        self.out = L.Dense(2, name="out")

    def call(self, inputs, training=None):
        outputs = keras.tree.flatten(self.network(inputs, training=training))
        return self.out(self.dropout(keras.ops.concatenate(outputs, axis=-1), training=training))

    def get_config(self):
        return {"network": keras.saving.serialize_keras_object(self.network), "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["network"]), name=config["name"])


def _holding(network):
    model = Holding(network, name="holding")
    model(random_inputs(network))
    return randomize(model)


def _in_a_sequential(network):
    inputs = keras.Input((WIDTH,))
    entering = keras.tree.map_structure(lambda _: inputs, network.input)
    one = keras.Model(inputs, keras.tree.flatten(network(entering))[0], name="one")
    return randomize(keras.Sequential([keras.Input((WIDTH,)), one, L.Dense(2, name="out")]))


FORMS = {"functional": lambda network: network, "sequential": _in_a_sequential, "subclassed": _holding}


def _set_at_random(model, data):
    """Freeze, regularize and constrain some of a model, after it was made."""
    flips = st.sampled_from([True, False, False, False])
    for layer in model._flatten_layers(include_self=False):
        if data.draw(flips):
            layer.trainable = False
    for variable in model.trainable_variables:
        if data.draw(flips):
            variable.regularizer = keras.regularizers.L2(0.01)
        if data.draw(flips):
            variable.constraint = keras.constraints.MaxNorm(2.0)


def _targets(model, inputs):
    return keras.tree.map_structure(lambda output: np.ones(output.shape, "float32"), model(inputs))


def _compiled(model, inputs, data):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    setting = data.draw(st.sampled_from(sorted(SETTINGS)))
    note(f"{kind}, {setting}")
    model.compile(of_kind(kind, **SETTINGS[setting]), "mse", run_eagerly=True)
    for _ in range(data.draw(st.integers(0, 2))):
        model.train_on_batch(inputs, _targets(model, inputs))


VERBS = {
    "rewrite": lambda model, folder: kerasbn.rewrite(model),
    "rewrite before": lambda model, folder: kerasbn.rewrite(model, position="before", dropout="all"),
    "rewrite nothing": lambda model, folder: kerasbn.rewrite(model, position="none", dropout="none"),
    "fold": lambda model, folder: kerasbn.fold(model),
    "from_keras": lambda model, folder: kerasbn.layers.from_keras(model),
    "to_keras": lambda model, folder: kerasbn.layers.to_keras(kerasbn.layers.from_keras(model)),
    "export": lambda model, folder: kerasbn.export(model, folder / "model.keras") and None,
}


def _state(model):
    return snapshot(model) | {
        "flags": [(layer.name, layer.trainable) for layer in model._flatten_layers()],
        "variables": _settings_of(model),
        "calls": recorded_calls(model),
        "compiled": model.compiled and model.get_compile_config(),
    }


def _settings_of(model):
    return [(each.path, each.trainable, each.regularizer, each.constraint) for each in model.variables]


def _by_place(model):
    """What is set on each variable that another model may have as well, by its layer and its own name."""
    return {
        tuple(path.split("/")[-2:]): (trainable, regularizer, constraint)
        for path, trainable, regularizer, constraint in _settings_of(model)
    }


def _check(data):
    form = data.draw(st.sampled_from(sorted(FORMS)))
    verb = data.draw(st.sampled_from(sorted(VERBS)))
    note(f"{form}, {verb}")
    source = FORMS[form](Composer(data).model())
    inputs = random_inputs(source) if form != "subclassed" else random_inputs(source.network)
    _set_at_random(source, data)
    _compiled(source, inputs, data)
    before = _state(source)
    with tempfile.TemporaryDirectory() as folder:
        result = VERBS[verb](source, Path(folder))
    assert _state(source) == before
    if result is None:
        return
    allowed = amplification(source, inputs)
    assert_same_function(source, result, inputs, tolerance=1e-4 if verb == "fold" else 1e-5, amplification=allowed)
    if form == "functional":
        assert result.output_names == source.output_names
    if form != "subclassed":
        assert type(result) is type(source)
    kept = _by_place(source)
    for place, setting in _by_place(result).items():
        assert setting == kept.get(place, setting), place
    if verb == "rewrite nothing":
        _check_course(source, inputs)


def _check_course(source, inputs):
    """Trained on, a rewrite that changes nothing follows the source's course."""
    targets = _targets(source, inputs)
    result = kerasbn.rewrite(source, position="none", dropout="none")  # now: a call draws random numbers
    for _ in range(2):
        for model in (source, result):
            keras.utils.set_random_seed(1)
            model.train_on_batch(inputs, targets)
    ours = {tuple(each.path.split("/")[-2:]): each for each in result.variables}
    for variable in source.variables:
        other = ours.get(tuple(variable.path.split("/")[-2:]))
        if other is not None and other.shape == variable.shape:
            np.testing.assert_allclose(other, variable, rtol=2e-4, atol=2e-4, err_msg=variable.path)


@settings(max_examples=80, **RELAXED)
@given(st.data())
def test_random_states(data):
    _check(data)


@pytest.mark.slow
@settings(max_examples=3000, **{**RELAXED, "derandomize": False})
@given(st.data())
def test_thousands_of_random_states(data):
    _check(data)
