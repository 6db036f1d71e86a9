"""Models inside models."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, names, random_inputs, randomize, snapshot


def _encoder(name="encoder"):
    return keras.Sequential([L.Dense(6, activation="relu", name="a"), L.Dense(6, name="b")], name=name)


def _siamese():
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    encoder = _encoder()
    x = L.Concatenate(name="join")([encoder(left), encoder(right)])
    return keras.Model([left, right], L.Dense(2, name="head")(L.ReLU(name="f")(x)))


def _deep():
    inside = keras.Input((6,), name="deepest_in")
    deepest = keras.Model(
        inside, L.Add(name="add")([inside, L.Dense(6, activation="tanh", name="a")(inside)]), name="deepest"
    )
    middle = keras.Sequential([keras.Input((6,)), deepest, L.Dense(6, activation="relu", name="a")], name="middle")
    inputs = keras.Input((6,), name="in")
    return keras.Model(inputs, L.Dense(2, name="head")(middle(L.Dense(6, activation="relu", name="a")(inputs))))


def _structured():
    image, extra = keras.Input((4,), name="image"), keras.Input((3,), name="extra")
    inside = keras.Model(
        {"image": image, "extra": extra},
        {"x": L.Dense(5, activation="relu", name="a")(image), "y": extra},
        name="inside",
    )
    one, two = keras.Input((4,), name="one"), keras.Input((3,), name="two")
    out = inside({"image": one, "extra": two})
    return keras.Model([one, two], L.Dense(2, name="head")(L.Concatenate(name="join")([out["x"], out["y"]])))


def _shared_with_the_trunk():
    shared = L.Dense(6, activation="relu", name="shared")
    inside = keras.Sequential([keras.Input((6,)), shared, L.Dense(6, activation="relu", name="own")], name="inside")
    inputs = keras.Input((6,), name="in")
    return keras.Model(inputs, L.Dense(2, name="head")(inside(shared(inputs))))


def _nested_head():
    inputs = keras.Input((6,), name="in")
    head = keras.Sequential([L.Dense(4, activation="relu", name="a"), L.Dense(2, name="logits")], name="head")
    return keras.Model(inputs, L.Activation("softmax", name="p")(head(L.Dense(6, activation="relu", name="b")(inputs))))


MODELS = {
    "siamese": (_siamese, {"encoder": "a a_bn a_activation b b_bn"}),
    "deep": (_deep, {"middle": "deepest a a_bn a_activation", "middle/deepest": "deepest_in a a_bn add"}),
    "structured": (_structured, {"inside": "image a a_bn extra a_activation"}),
    "shared with the trunk": (
        _shared_with_the_trunk,
        {"inside": "shared shared_bn shared_activation own own_bn own_activation"},
    ),
    "head inside": (_nested_head, {"head": "a a_bn a_activation logits"}),
}


def _inside(model, path):
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
@pytest.mark.parametrize("case", MODELS)
def test_rewritten_in_place(case, copy, tmp_path):
    make, inside = MODELS[case]
    source = randomize(make())
    before = snapshot(source)
    result = kerasbn.rewrite(source, copy=copy)
    for path, layers in inside.items():
        assert sorted(names(_inside(result, path)).split()) == sorted(layers.split())
        assert type(_inside(result, path)) is type(_inside(source, path))
    assert [layer.name for layer in result.layers if isinstance(layer, keras.Model)] == [
        layer.name for layer in source.layers if isinstance(layer, keras.Model)
    ]
    assert_same_function(source, result)
    if copy:
        assert snapshot(source) == before
    if case != "shared with the trunk":  # Keras saves such a model, but cannot load it
        result.save(tmp_path / "result.keras")
        assert_same_function(result, keras.models.load_model(tmp_path / "result.keras"), tolerance=0)


def test_a_model_called_twice_stays_one():
    result = kerasbn.rewrite(randomize(_siamese()))
    encoder = result.get_layer("encoder")
    assert sum(layer is encoder for layer in result.layers) == 1
    assert len(encoder._inbound_nodes) == 2


def test_sites_and_rules_go_by_path():
    plan = kerasbn.plan(_deep(), rules=[("middle/deepest/*", "before"), ("middle/a", "skip")])
    assert {edit.site for edit in plan.edits if edit.kind == "insert"} == {"a#0", "middle/deepest/a#0"}
    assert {skip.site: skip.reason for skip in plan.skips}["middle/a#0"] == Reason.RULE


def test_a_layer_shared_with_the_trunk_is_one_layer():
    result = kerasbn.rewrite(randomize(_shared_with_the_trunk()))
    assert result.get_layer("shared") is result.get_layer("inside").get_layer("shared")
    assert {"shared_bn", "shared_activation"} <= set(names(result).split())


def test_models_that_need_no_change_are_reused_without_copy():
    source = randomize(_siamese())
    result = kerasbn.rewrite(source, position="none", copy=False)
    assert result.get_layer("encoder") is source.get_layer("encoder")


@keras.saving.register_keras_serializable()
class Subclassed(keras.Model):
    """Computes what no graph tells."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(6, activation="relu")

    def call(self, inputs):
        return self.dense(inputs) * 2.0


def test_a_subclassed_model_inside_is_kept_whole_if_asked():
    inputs = keras.Input((6,), name="in")
    x = Subclassed(name="own")(L.Dense(6, activation="relu", name="a")(inputs))
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(x)))
    plan = kerasbn.plan(source, custom_layers="keep")
    assert {skip.site: skip.reason for skip in plan.skips}["own#0"] == Reason.OPAQUE
    result = plan.apply()
    assert result.get_layer("own") is not source.get_layer("own")
    assert_same_function(source, result)


def test_dropout_inside():
    inputs = keras.Input((6,), name="in")
    noise = keras.Sequential([keras.Input((6,)), L.Dropout(0.5, name="d")], name="noise")
    block = keras.Sequential([L.Dense(6, activation="relu", name="a"), L.Dropout(0.5, name="d")], name="block")
    x = block(noise(inputs))
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(L.Dense(6, activation="relu", name="b")(x))))
    plan = kerasbn.plan(source)
    assert [edit.site for edit in plan.edits if edit.kind == "remove"] == ["block/d#0"]
    assert {skip.site: skip.reason for skip in plan.skips}["noise/d#0"] == Reason.ONLY_LAYER
    assert_same_function(source, plan.apply())


def test_training_reaches_the_inside():
    source = randomize(_siamese())
    source.compile("adam", "mse")
    result = kerasbn.rewrite(source)
    inputs = random_inputs(source, batch=16)
    result.fit(inputs, np.zeros((16, 2)), verbose=0)
    assert np.any(keras.ops.convert_to_numpy(result.get_layer("encoder").get_layer("a_bn").moving_mean))


def test_a_model_called_as_in_training_gets_no_normalization():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(6, activation="relu", name="a")], name="inner")
    inputs = keras.Input((4,))
    plan = kerasbn.plan(keras.Model(inputs, L.Dense(2, name="head")(inner(inputs, training=True))))
    assert not plan.edits
    assert [skip.reason for skip in plan.skips if skip.site == "inner/a#0"] == [Reason.TRAINING]
