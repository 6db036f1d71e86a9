"""Every layer that Keras has is carried over: its configuration, its weights, what it computes."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import UnsupportedModelError
from tests.every_layer import IMAGE, VECTOR, every_layer, model_with
from tests.helpers import assert_same_function, random_inputs, randomize

WITHOUT_A_CASE = {
    *("Layer", "Wrapper"),  # to be derived from
    *("LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"),  # in "RNN"
    "InputLayer",  # in each
    *("CutMix", "MixUp", "MaxNumBoundingBoxes"),  # labels or boxes, for a pipeline of data
    "TextVectorization",  # text
    "Equalization",  # Keras builds no model with it: "part of a cycle"
    "RandomShear",  # below
    *("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"),  # what other libraries made
}


@pytest.mark.parametrize("name", sorted(every_layer()))
def test_carried_over(name):
    source = model_with(name)
    randomize(source)
    result = kerasbn.rewrite(source, position="none", dropout="none")
    ours, theirs = result.layers[-1], source.layers[-1]
    assert type(ours) is type(theirs)
    assert ours is not theirs
    assert ours.get_config() == theirs.get_config()
    for one, other in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one is not other
    if name != "StringLookup":
        assert_same_function(source, result, random_inputs(source), tolerance=0)


def test_what_its_own_configuration_cannot_rebuild_is_refused_or_reused():
    """Keras's RandomShear does not take the factors that its get_config gives."""
    inputs = keras.Input(IMAGE)
    source = keras.Model(inputs, L.RandomShear(0.2, name="shear")(inputs))
    with pytest.raises(UnsupportedModelError, match=r"'shear' \(RandomShear\).*copy=False"):
        kerasbn.rewrite(source)
    assert_same_function(source, kerasbn.rewrite(source, copy=False))


def test_an_identity_made_with_a_policy_object():
    inputs = keras.Input(VECTOR)
    source = keras.Model(inputs, L.Dense(2)(L.Identity(dtype=keras.DTypePolicy("float32"), name="same")(inputs)))
    assert_same_function(source, kerasbn.rewrite(source), tolerance=0)


class Gated(L.Layer):
    """A layer whose argument `activation` is an attribute of another name."""

    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.gate = keras.activations.get(activation)
        self.activation = None

    def call(self, inputs):
        return inputs * self.gate(inputs)

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.gate)}


def test_an_argument_kept_under_another_name():
    inputs = keras.Input(VECTOR)
    source = keras.Model(inputs, Gated("sigmoid")(inputs))
    assert_same_function(source, kerasbn.rewrite(source), tolerance=0)


class Terse(L.Layer):
    """As in most tutorials: the constructor takes nothing, not even a name."""

    def __init__(self):
        super().__init__()
        self.inner = L.Dense(3)

    def call(self, inputs):
        return self.inner(inputs)


def test_a_constructor_without_arguments():
    inputs = keras.Input(VECTOR)
    source = randomize(keras.Model(inputs, Terse()(inputs)))
    result = kerasbn.rewrite(source, custom_layers="keep")
    assert [layer.name for layer in result.layers] == [layer.name for layer in source.layers]
    assert [variable.path for variable in result.variables] == [variable.path for variable in source.variables]
    assert_same_function(source, result, tolerance=0)


@keras.saving.register_keras_serializable("every_layer")
class Talkative(L.Layer):
    """Its configuration tells what the constructor works out, or was told afterwards, and does not take."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.twice = units, 2 * units
        self.inner = L.Dense(units, name="inner")

    def call(self, inputs):
        return self.twice * self.inner(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "twice": self.twice}


def test_a_configuration_that_tells_more_than_the_constructor_takes(tmp_path):
    inputs = keras.Input(VECTOR)
    source = randomize(keras.Model(inputs, Talkative(3, name="talks")(inputs)))
    result = source
    for number in range(2):  # a copy of a copy as well
        result = kerasbn.rewrite(result, custom_layers="keep")
        assert type(result.get_layer("talks")) is Talkative
        assert_same_function(source, result, tolerance=0)
        result.save(tmp_path / f"{number}.keras")
        assert_same_function(source, keras.models.load_model(tmp_path / f"{number}.keras"), tolerance=0)
    source.get_layer("talks").twice = 5
    with pytest.raises(UnsupportedModelError, match=r"'talks' \(Talkative\).*copy=False"):
        kerasbn.rewrite(source, custom_layers="keep")


def test_the_policy_of_a_layer_whose_configuration_does_not_tell_it():
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = Terse()
    finally:
        keras.config.set_dtype_policy(default)
    inputs = keras.Input(VECTOR)
    source = keras.Model(inputs, layer(inputs))
    for custom_layers in ("open", "keep"):
        result = kerasbn.rewrite(source, custom_layers=custom_layers)
        assert result.layers[-1].dtype_policy.name == "mixed_bfloat16"


def test_every_layer_has_a_case():
    public = {
        value.__name__ for value in vars(L).values() if inspect.isclass(value) and issubclass(value, keras.layers.Layer)
    }
    assert public - WITHOUT_A_CASE == set(every_layer())
