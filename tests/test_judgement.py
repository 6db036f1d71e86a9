"""Where a normalization does harm, none is put: networks of everyday kinds, and what is left alone in each."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, randomize

POSITIONS = ["auto", "before", "after"]
IMAGE = (8, 8, 3)


def served(plan):
    """The layers that get a normalization, each named after its layer."""
    inserted = (edit for edit in plan.edits if edit.kind == "insert")
    return {edit.changes[-1].layer.name.partition("_bn")[0] for edit in inserted}


def reasons(plan):
    return {skip.site.partition("#")[0]: skip.reason for skip in plan.skips}


def trunk(inputs):
    return L.Conv2D(6, 3, padding="same", activation="relu", name="trunk")(inputs)


def vector():
    return keras.Input((6,), name="in")


def image():
    return keras.Input(IMAGE, name="in")


def hidden(inputs):
    return L.Dense(8, activation="relu", name="trunk")(inputs)


def detector():
    inputs = image()
    x = trunk(inputs)
    boxes = L.Reshape((64, 4))(L.Conv2D(4, 1, name="boxes")(x))
    objectness = L.Reshape((64, 1))(L.Conv2D(1, 1, activation="sigmoid", name="objectness")(x))
    return keras.Model(inputs, L.Concatenate()([boxes, objectness]))


def decoded_boxes():
    inputs = image()
    raw = L.Conv2D(4, 1, name="boxes")(trunk(inputs))
    centers, sizes = ops.split(raw, 2, axis=-1)
    return keras.Model(inputs, ops.concatenate([ops.sigmoid(centers) * 8, ops.exp(sizes) * 2.0], axis=-1))


def segmentation():
    inputs = image()
    x = L.Conv2D(5, 1, name="logits")(trunk(inputs))
    return keras.Model(inputs, L.Softmax()(L.UpSampling2D(2)(x)))


def dueling():
    inputs = vector()
    x = hidden(inputs)
    value, advantage = L.Dense(1, name="value")(x), L.Dense(4, name="advantage")(x)
    return keras.Model(inputs, value + (advantage - ops.mean(advantage, axis=-1, keepdims=True)))


def temperature():
    inputs = vector()
    return keras.Model(inputs, ops.softmax(L.Dense(4, name="logits")(hidden(inputs)) / 0.5))


def rescaled():
    inputs = vector()
    return keras.Model(inputs, L.Rescaling(10.0)(L.Dense(1, activation="tanh", name="action")(hidden(inputs))))


def distribution():
    inputs = vector()
    x = hidden(inputs)
    scale = ops.softplus(L.Dense(2, name="scale")(x)) + 1e-3
    return keras.Model(inputs, L.Concatenate()([L.Dense(2, name="mean")(x), scale]))


def ensemble():
    inputs = vector()
    x = hidden(inputs)
    members = [L.Dense(3, activation="softmax", name=f"member{number}")(x) for number in range(2)]
    return keras.Model(inputs, L.Average()(members))


def clipped():
    inputs = vector()
    return keras.Model(inputs, ops.clip(L.Dense(1, name="bounded")(hidden(inputs)), 0, 1))


def super_resolution():
    inputs = image()
    return keras.Model(inputs, L.Add()([inputs, L.Conv2D(3, 3, padding="same", name="residual")(trunk(inputs))]))


def class_maps():
    inputs = image()
    x = L.GlobalAveragePooling2D()(L.Conv2D(5, 1, name="maps")(trunk(inputs)))
    return keras.Model(inputs, L.Activation("softmax")(x))


def two_towers():
    inputs, other = vector(), keras.Input((6,), name="other")
    towers = [L.Dense(4, name="left")(hidden(inputs)), L.Dense(4, name="right")(L.Dense(8, "relu", name="deep")(other))]
    return keras.Model([inputs, other], L.Dot(-1)(towers))


class Scale(L.Layer):
    """A number for each channel, as YOLOR has behind its heads."""

    def build(self, shape):
        self.scale = self.add_weight((1, shape[-1]), "ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale


def learned_scale():
    inputs = vector()
    return keras.Model(inputs, Scale()(L.Dense(3, name="logits")(hidden(inputs))))


def given_out_and_used():
    inputs = image()
    coarse = L.Conv2D(2, 1, name="coarse")(trunk(inputs))
    fine = L.Conv2D(2, 1, name="fine")(L.Conv2D(6, 3, padding="same", activation="relu", name="more")(coarse))
    return keras.Model(inputs, [coarse, fine])


def backbone():
    inputs = image()
    x = L.Conv2D(6, 3, name="last")(trunk(inputs))
    return keras.Model(inputs, L.GlobalAveragePooling2D()(L.ReLU()(x)))


# The layers that are heads, and those that are not.
HEADS = {
    detector: ("boxes objectness", "trunk"),
    decoded_boxes: ("boxes", "trunk"),
    segmentation: ("logits", "trunk"),
    dueling: ("value advantage", "trunk"),
    temperature: ("logits", "trunk"),
    rescaled: ("action", "trunk"),
    distribution: ("mean scale", "trunk"),
    ensemble: ("member0 member1", "trunk"),
    clipped: ("bounded", "trunk"),
    super_resolution: ("residual", "trunk"),
    class_maps: ("maps", "trunk"),
    learned_scale: ("logits", "trunk"),
    two_towers: ("left right", "trunk deep"),
    given_out_and_used: ("coarse fine", "trunk more"),
    backbone: ("", "trunk last"),
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("make", HEADS, ids=lambda make: make.__name__)
def test_heads(make, position):
    heads, others = (set(names.split()) for names in HEADS[make])
    source = randomize(make())
    plan = kerasbn.plan(source, position=position)
    assert {name for name in heads | others if reasons(plan).get(name) is Reason.OUTPUT} == heads
    inserted = {edit.site.partition("#")[0] for edit in plan.edits if edit.kind == "insert"}
    if position == "before":
        assert inserted == others
    assert len(inserted) == len(others)
    assert_same_function(source, plan.apply())
    for head in heads:
        assert f"{head}_bn" in {layer.name for layer in kerasbn.rewrite(source, rules=[(head, "before")]).layers}


def base():
    inputs = image()
    return keras.Model(
        inputs,
        L.GlobalAveragePooling2D(name="pool")(L.Conv2D(6, 3, activation="relu", name="c")(trunk(inputs))),
        name="base",
    )


def on_top(network, **arguments):
    inputs = image()
    x = L.Dense(8, activation="relu", name="top")(network(inputs, **arguments))
    return keras.Model(inputs, L.Dense(2, name="head")(x))


def inference_only():
    return on_top(base(), training=False)


def frozen():
    network = base()
    network.trainable = False
    return on_top(network)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("make", [inference_only, frozen])
def test_parts_that_never_train(make, position):
    source = randomize(make())
    plan = kerasbn.plan(source, position=position)
    assert {edit.site for edit in plan.edits if edit.kind == "insert"} == {"top#0"}
    for name in ("base/trunk", "base/c"):
        assert reasons(plan)[name] is Reason.NEVER_TRAINS
    assert "2 never_trains" in plan.outcome
    result = plan.apply()
    assert_same_function(source, result)
    assert result.get_layer("base").trainable == source.get_layer("base").trainable
    insisted = kerasbn.rewrite(source, rules=[("base/*", "before")])
    assert "c_bn" in {layer.name for layer in insisted.get_layer("base").layers}


def test_a_part_that_is_called_both_ways_trains():
    network = base()
    inputs = image()
    x = L.Concatenate()([network(inputs), network(inputs, training=False)])
    source = keras.Model(inputs, L.Dense(2, name="head")(x))
    assert {edit.site for edit in kerasbn.plan(source).edits if edit.kind == "insert"} == {"base/trunk#0", "base/c#0"}


def encoder():
    """Layers that are called one by one, not as a model."""
    layers = [L.Dense(6, activation="relu", name=f"e{index}") for index in range(2)]

    def encode(inputs):
        for layer in layers:
            inputs = layer(inputs)
        return inputs

    return encode


def siamese():
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    encode = encoder()
    return keras.Model([left, right], L.Dense(1, name="head")(ops.abs(encode(left) - encode(right))))


def triplet():
    inputs = [keras.Input((6,), name=name) for name in ("anchor", "positive", "negative")]
    encode = encoder()
    return keras.Model(inputs, L.Dense(1, name="head")(L.Concatenate()([encode(each) for each in inputs])))


def two_views():
    inputs = keras.Input((6,), name="in")
    encode = encoder()
    views = [L.GaussianNoise(0.1, seed=number)(inputs) for number in range(2)]
    return keras.Model(inputs, L.Dense(1, name="head")(L.Concatenate()([encode(view) for view in views])))


def unrolled():
    x = inputs = keras.Input((6,), name="in")
    encode = encoder()
    for _ in range(3):
        x = encode(x)
    return keras.Model(inputs, L.Dense(1, name="head")(x))


def pyramid():
    inputs = keras.Input((16, 16, 3), name="in")
    fine = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="fine")(inputs)
    coarse = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="coarse")(fine)
    tower, head = L.Conv2D(4, 3, padding="same", activation="relu", name="e0"), L.Conv2D(2, 1, name="head")
    return keras.Model(inputs, [head(tower(fine)), head(tower(coarse))])


def levels_of_open_size():
    inputs = keras.Input((None, None, 3), name="in")
    fine = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="fine")(inputs)
    coarse = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="coarse")(fine)
    tower, head = L.Conv2D(4, 3, padding="same", activation="relu", name="e0"), L.Conv2D(2, 1, name="head")
    return keras.Model(inputs, [head(tower(fine)), head(tower(coarse))])


# How many normalizations the shared layer "e0" gets.
TWINS = {siamese: 1, triplet: 1, two_views: 1, unrolled: 3, pyramid: 2, levels_of_open_size: 2}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("make", TWINS, ids=lambda make: make.__name__)
def test_twins(make, position):
    source = randomize(make())
    plan = kerasbn.plan(source, position=position)
    edits = [edit for edit in plan.edits if edit.kind == "insert" and edit.site.startswith("e0#")]
    assert len({edit.changes[-1].layer for edit in edits}) == TWINS[make]
    why = "which are twins" if TWINS[make] == 1 else "no twins"
    assert all(why in edit.detail for edit in edits)
    assert_same_function(source, plan.apply())


def test_twins_stay_twins():
    source = randomize(siamese())
    model = kerasbn.rewrite(keras.Model(source.inputs, source.get_layer("head").input))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    generator = np.random.default_rng(0)
    left, right = (generator.normal(mean, 2, (64, 6)).astype("float32") for mean in (0, 3))
    model.fit([left, right], np.ones((64, 6)), epochs=3, verbose=0)
    np.testing.assert_allclose(model([left, left]), 0, atol=1e-6)


def film():
    inputs, condition = image(), keras.Input((5,), name="condition")
    x = trunk(inputs)
    x = L.Conv2D(6, 3, padding="same", name="features")(x)
    gamma, beta = (L.Reshape((1, 1, 6))(L.Dense(6, name=name)(condition)) for name in ("gamma", "beta"))
    x = L.GlobalAveragePooling2D()(L.ReLU()((1 + gamma) * x + beta))
    return keras.Model([inputs, condition], L.Dense(2, name="head")(x))


def film_of_vectors():
    inputs, condition = vector(), keras.Input((5,), name="condition")
    x = L.Dense(6, name="features")(hidden(inputs))
    gamma, beta = (L.Dense(6, name=name)(condition) for name in ("gamma", "beta"))
    return keras.Model([inputs, condition], L.Dense(2, name="head")(L.ReLU()(L.Multiply()([x, gamma]) + beta)))


def flow():
    inputs = vector()
    one, other = ops.split(inputs, 2, axis=-1)
    x = L.Dense(8, activation="relu", name="trunk")(one)
    scale, shift = L.Dense(3, activation="tanh", name="scale")(x), L.Dense(3, name="shift")(x)
    return keras.Model(inputs, L.Dense(2, name="head")(ops.concatenate([one, other * ops.exp(scale) + shift], axis=-1)))


def swiglu():
    inputs = vector()
    x = hidden(inputs)
    return keras.Model(
        inputs, L.Dense(2, name="head")(L.Dense(6, "silu", name="gated")(x) * L.Dense(6, name="value")(x))
    )


def wavenet():
    inputs = keras.Input((8, 3), name="in")
    x = L.Conv1D(6, 3, activation="tanh", name="feature")(inputs) * L.Conv1D(6, 3, activation="sigmoid", name="gate")(
        inputs
    )
    return keras.Model(inputs, L.Dense(2, name="head")(L.GlobalAveragePooling1D()(x)))


def gated_linear_unit():
    inputs = keras.Input((8, 3), name="in")
    x = L.Conv1D(6, 3, name="feature")(inputs) * ops.sigmoid(L.Conv1D(6, 3, name="gate")(inputs))
    return keras.Model(inputs, L.Dense(2, name="head")(L.GlobalAveragePooling1D()(x)))


def highway():
    inputs = vector()
    x = hidden(inputs)
    feature, gate = L.Dense(8, activation="relu", name="feature")(x), L.Dense(8, activation="sigmoid", name="gate")(x)
    return keras.Model(inputs, L.Dense(2, name="head")(feature * gate + x * (1.0 - gate)))


def spatial_gate():
    inputs = image()
    x = trunk(inputs)
    gate = L.UpSampling2D(2)(
        L.Conv2D(1, 3, activation="sigmoid", name="gate")(L.MaxPooling2D(2)(L.ZeroPadding2D(2)(x)))
    )
    return keras.Model(
        inputs, L.Dense(2, name="head")(L.GlobalAveragePooling2D()(x * L.Cropping2D(0)(gate[:, :8, :8])))
    )


def swish_by_hand():
    inputs = vector()
    x = L.Dense(8, name="trunk")(inputs)
    return keras.Model(inputs, L.Dense(2, name="head")(x * ops.sigmoid(x)))


def mixture():
    inputs = vector()
    x = hidden(inputs)
    experts = [L.Dense(4, activation="relu", name=f"expert{number}")(x) for number in range(2)]
    weights = ops.split(L.Dense(2, activation="softmax", name="weights")(x), 2, axis=-1)
    return keras.Model(inputs, L.Dense(2, name="head")(experts[0] * weights[0] + experts[1] * weights[1]))


# The modulators, which are left alone; the gates, normalized ahead of their sigmoid or not at all; the others.
GATED = {
    film: ("gamma beta", "", "trunk features"),
    film_of_vectors: ("gamma beta", "", "trunk features"),
    flow: ("scale shift", "", "trunk"),
    swiglu: ("", "", "trunk gated value"),
    wavenet: ("", "gate", "feature"),
    gated_linear_unit: ("", "gate", "feature"),
    highway: ("", "gate", "trunk feature"),
    spatial_gate: ("", "gate", "trunk"),
    swish_by_hand: ("", "trunk", ""),
    mixture: ("", "", "trunk expert0 expert1 weights"),
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("make", GATED, ids=lambda make: make.__name__)
def test_gates_and_modulators(make, position):
    modulators, gates, others = (set(names.split()) for names in GATED[make])
    source = randomize(make())
    plan = kerasbn.plan(source, position=position)
    why = reasons(plan)
    assert {name for name in modulators | gates | others if why.get(name) is Reason.MODULATOR} == modulators
    inserted = {edit.site.partition("#")[0]: edit.detail for edit in plan.edits if edit.kind == "insert"}
    for gate in gates:
        if position == "after":
            assert why[gate] is Reason.GATE
            assert gate not in inserted
        else:
            assert "before sigmoid" in inserted[gate]
    if position == "before":
        assert inserted.keys() == gates | others
    assert_same_function(source, plan.apply())


def block(x, *branch):
    y = x
    for layer in branch:
        y = layer(y)
    return L.Add()([x, y])


def of_blocks(*blocks):
    x = inputs = image()
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="stem")(x)
    for branch in blocks:
        x = branch(x)
    return keras.Model(inputs, L.Dense(2, name="head")(L.GlobalAveragePooling2D(name="pool")(x)))


def conv(name, **arguments):
    return L.Conv2D(6, 3, padding="same", name=name, **arguments)


def gated(x):
    y = L.LayerNormalization()(x)
    y = conv("value")(y) * L.Activation("silu")(conv("gate")(y))
    return L.Add()([x, conv("out")(y)])


def custom_scale(x):
    y = conv("b")(L.ReLU()(conv("a")(L.LayerNormalization()(x))))
    return L.Add()([x, Scale4()(y)])


class Scale4(Scale):
    def build(self, shape):
        self.scale = self.add_weight((1, 1, 1, shape[-1]), "ones", name="scale")


def mixer_first(x):
    return block(
        x, L.DepthwiseConv2D(3, padding="same", name="mix"), conv("a"), L.BatchNormalization(), L.ReLU(), conv("b")
    )


def split_channels(x):
    one, other = ops.split(x, 2, axis=-1)
    y = L.Concatenate()([L.Conv2D(3, 3, padding="same", name="part")(one), other])
    y = conv("b")(L.ReLU()(L.BatchNormalization()(conv("a")(y))))
    return L.Add()([x, y])


def half_normalized(x):
    """One of its two ways goes past the normalization."""
    y = L.Add()([L.BatchNormalization()(conv("a")(x)), conv("b", activation="relu")(x)])
    return L.Add()([x, conv("c")(L.ReLU()(y))])


def plain(x):
    return block(x, conv("d", activation="relu"), conv("e"))


def around(x):
    """A long skip around a block that is normalized and one that is not."""
    return L.Add()([x, plain(mixer_first(x))])


# The blocks, and the layers besides the stem that get a normalization in `auto`.
BRANCHES = {
    gated: "",
    custom_scale: "",
    mixer_first: "",
    split_channels: "",
    half_normalized: "b c",
    plain: "d e",
    around: "d e",
}


@pytest.mark.parametrize("make", BRANCHES, ids=lambda make: make.__name__)
def test_residual_branches_that_are_normalized(make):
    source = randomize(of_blocks(make))
    plan = kerasbn.plan(source)
    assert served(plan) - {"stem"} == set(BRANCHES[make].split())
    left = {name for name, reason in reasons(plan).items() if reason is Reason.NORMALIZED}
    linear = {layer.name for layer in source.layers if isinstance(layer, L.Conv2D | L.DepthwiseConv2D)}
    assert linear - served(plan) <= left
    assert_same_function(source, plan.apply())


def linear_attention():
    inputs = keras.Input((8, 6), name="in")
    query, key, value = ops.split(
        L.Conv1D(12, 1, name="qkv")(L.Dense(6, activation="relu", name="trunk")(inputs)), 3, axis=-1
    )
    context = ops.matmul(ops.transpose(ops.relu(key), (0, 2, 1)), value)
    x = L.Dense(6, activation="relu", name="proj")(ops.matmul(ops.relu(query), context))
    return keras.Model(inputs, L.Dense(2, name="head")(L.GlobalAveragePooling1D()(x)))


def test_what_an_attention_multiplies():
    plan = kerasbn.plan(randomize(linear_attention()))
    assert reasons(plan)["qkv"] is Reason.ATTENTION
    assert served(plan) == {"trunk", "proj"}
