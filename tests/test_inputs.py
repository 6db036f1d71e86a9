"""Normalization of the model's inputs."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, names, randomize, sequential, snapshot, wiring


def _several():
    image, vector = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="vector")
    words = keras.Input((7,), dtype="int32", name="words")
    x = L.GlobalAveragePooling2D(name="pool")(L.Conv2D(4, 3, name="c")(image))
    w = L.GlobalAveragePooling1D(name="mean")(L.Embedding(20, 4, name="embedding")(words))
    joined = L.Concatenate(name="join")([x, vector, w])
    return randomize(keras.Model({"image": image, "vector": vector, "words": words}, L.Dense(2, name="head")(joined)))


def test_sequential():
    source = sequential(L.Dense(8, name="a"))
    before = snapshot(source)
    result = kerasbn.rewrite(source, position="none", normalize_inputs=True)
    assert isinstance(result, keras.Sequential)
    assert names(result) == "in_bn a head"
    assert_same_function(source, result)
    assert snapshot(source) == before


@keras.saving.register_keras_serializable("inputs")
class Offset(L.Layer):
    def call(self, inputs, offset=None):
        return inputs if offset is None else inputs + offset

    def compute_output_spec(self, inputs, offset=None):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def test_one_that_may_be_left_out():
    one, other = keras.Input((4,), name="one"), keras.Input((4,), name="other", optional=True)
    source = keras.Model({"one": one, "other": other}, L.Dense(2)(L.Dense(4, activation="relu")(Offset()(one, other))))
    plan = kerasbn.plan(source, normalize_inputs=True)
    assert {skip.site: skip.reason for skip in plan.skips}["other"] == Reason.OPTIONAL
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    for data in ({"one": x, "other": None}, {"one": x, "other": 2 * x}):
        np.testing.assert_allclose(plan.apply()(data), source(data), atol=1e-5)


def test_several_inputs():
    source = _several()
    plan = kerasbn.plan(source, position="none", normalize_inputs=True)
    assert {skip.site: skip.reason for skip in plan.skips}["words"] == Reason.NOT_NUMERIC
    result = plan.apply()
    assert {"image>image_bn", "image_bn>c", "vector>vector_bn", "vector_bn>join", "words>embedding"} <= wiring(result)
    assert_same_function(source, result)
    assert [tensor.name for tensor in result.inputs] == [tensor.name for tensor in source.inputs]


def test_every_user_of_the_input_sees_the_normalized_one():
    inputs = keras.Input((6,), name="in")
    x = L.Add(name="add")([L.Dense(6, name="a")(inputs), inputs])
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(x)))
    result = kerasbn.rewrite(source, position="none", normalize_inputs=True)
    assert wiring(result) == {"in>in_bn", "in_bn>a", "in_bn>add", "a>add", "add>head"}


def test_an_input_that_is_an_output_goes_out_as_it_is():
    inputs, other = keras.Input((6,), name="in"), keras.Input((3,), name="other")
    outputs = [L.Dense(2, name="head")(inputs), inputs, other]
    source = randomize(keras.Model([inputs, other], outputs))
    sample = [np.random.default_rng(0).normal(5, 3, (64, size)).astype("float32") for size in (6, 3)]
    plan = kerasbn.plan(source, position="none", normalize_inputs=True, data=sample)
    assert {skip.site: skip.reason for skip in plan.skips}["other"] == Reason.OUTPUT
    result = plan.apply()
    assert {"in>in_bn", "in_bn>head"} <= wiring(result)
    assert result.output_names == ["head", "in", "other"]
    for training in (False, True):
        _, *got = result(sample, training=training)
        for one, other in zip(sample, got, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_rule_leaves_an_input_alone():
    plan = kerasbn.plan(_several(), position="none", normalize_inputs=True, rules=[("image", "skip")])
    assert {skip.site: skip.reason for skip in plan.skips}["image"] == Reason.RULE
    assert [edit.site for edit in plan.edits] == ["vector"]
    with pytest.raises(kerasbn.OptionError, match="matches no layer"):
        kerasbn.plan(_several(), rules=[("image", "skip")])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_inputs_keep_their_type(dtype, policy):
    """Whatever the policy is that new layers get."""
    inputs = keras.Input((6,), name="in", dtype=dtype)
    source = randomize(keras.Model(inputs, L.Dense(2, name="head", dtype="float32")(inputs)))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        result = kerasbn.rewrite(source, position="none", normalize_inputs=True)
    finally:
        keras.config.set_dtype_policy(before)
    layer = result.get_layer("in_bn")
    assert (layer.compute_dtype, layer.gamma.dtype) == (dtype, "float64" if dtype == "float64" else "float32")
    assert [each.dtype_policy for each in result.layers if each is not layer] == [
        each.dtype_policy for each in source.layers
    ]


@pytest.mark.parametrize("layer", [L.BatchNormalization, L.LayerNormalization, L.Normalization])
def test_what_is_normalized_already(layer):
    source = sequential(layer(), L.Dense(8, name="a"))
    plan = kerasbn.plan(source, normalize_inputs=True)
    assert {skip.site: skip.reason for skip in plan.skips}["in"] == Reason.NORMALIZED


def test_channels_first():
    pool = L.AveragePooling2D(1, data_format="channels_first")
    source = keras.Sequential([keras.Input((3, 8, 8), name="in"), pool, L.Flatten(), L.Dense(2)])
    assert kerasbn.rewrite(source, normalize_inputs=True).get_layer("in_bn").axis == 1


def test_without_a_fixed_size_there_are_no_channels():
    inputs = keras.Input((4, None), name="in")
    source = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D(data_format="channels_first")(inputs)))
    source.get_layer(index=1).data_format = "channels_last"
    plan = kerasbn.plan(source, normalize_inputs=True)
    assert {skip.site: skip.reason for skip in plan.skips}["in"] == Reason.CHANNEL_AXIS


def test_statistics_of_a_sample():
    source = sequential(L.Dense(8, activation="relu", name="a"))
    sample = np.random.default_rng(0).normal(5, 3, (200, 12)).astype("float32") * np.geomspace(1e-3, 1e3, 12)
    sample = sample.astype("float32")
    result = kerasbn.rewrite(source, normalize_inputs=True, data=sample, preserve=False)
    np.testing.assert_allclose(result.get_layer("in_bn").moving_mean, sample.mean(0), rtol=1e-4)
    normalized = keras.ops.convert_to_numpy(result.get_layer("in_bn")(sample))
    np.testing.assert_allclose(normalized.std(0), np.ones(12), rtol=0.01)


def test_an_input_without_a_name_goes_by_that_of_its_layer():
    inputs = keras.Input((6,))
    source = keras.Model(inputs, L.Dense(2, name="head")(inputs))
    (name,) = (layer.name for layer in source.layers if isinstance(layer, L.InputLayer))
    (edit,) = kerasbn.plan(source, position="none", normalize_inputs=True).edits
    assert edit.site == name
    assert not kerasbn.plan(source, normalize_inputs=True, rules=[(name, "skip")]).edits


def test_noise_on_normalized_inputs_stays():
    """It is augmentation, as it would be on standardised data."""
    source = sequential(L.GaussianNoise(0.1, name="noise"), L.Dense(8, activation="relu", name="a"))
    plan = kerasbn.plan(source, normalize_inputs=True)
    assert {skip.site: skip.reason for skip in plan.skips}["noise#0"] == Reason.AUGMENTATION
