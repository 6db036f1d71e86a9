"""Before and after, as tables: which layers a rewrite makes of which, and that it computes the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, names, random_inputs, randomize, sequential, snapshot, wiring

IMAGE, SEQUENCE, VOLUME = (8, 8, 4), (10, 4), (6, 6, 6, 2)

# Layers between the input and the head, and what stands there afterwards, by position.
CHAINS = {
    "relu built in": (
        lambda: [L.Dense(8, activation="relu", name="a")],
        {"before": "a a_bn a_activation", "after": "a a_bn", "auto": "a a_bn a_activation", "none": "a"},
    ),
    "tanh built in": (
        lambda: [L.Dense(8, activation="tanh", name="a")],
        {"before": "a a_bn a_activation", "after": "a a_bn", "auto": "a a_bn", "none": "a"},
    ),
    "activation layer": (
        lambda: [L.Dense(8, name="a"), L.Activation("gelu", name="f")],
        {"before": "a a_bn f", "after": "a f a_bn", "auto": "a a_bn f", "none": "a f"},
    ),
    "sigmoid layer": (
        lambda: [L.Dense(8, name="a"), L.Activation("sigmoid", name="f")],
        {"before": "a a_bn f", "after": "a f a_bn", "auto": "a f a_bn"},
    ),
    "prelu, with weights of its own": (
        lambda: [L.Dense(8, name="a"), L.PReLU(name="f")],
        {"before": "a a_bn f", "after": "a f a_bn", "auto": "a a_bn f"},
    ),
    "no activation": (
        lambda: [L.Dense(8, name="a"), L.Dense(8, activation="relu", name="b")],
        {"before": "a a_bn b b_bn b_activation", "after": "a b b_bn", "auto": "a a_bn b b_bn b_activation"},
    ),
    "linear activation layer": (
        lambda: [L.Dense(8, name="a"), L.Activation("linear", name="f"), L.Dense(8, activation="tanh", name="b")],
        {"before": "a a_bn f b b_bn b_activation", "after": "a f b b_bn", "auto": "a a_bn f b b_bn"},
    ),
    "dropout between": (
        lambda: [L.Dense(8, name="a"), L.Dropout(0.5, name="d"), L.Activation("tanh", name="f")],
        {"before": "a a_bn d f", "after": "a f a_bn", "auto": "a f a_bn"},
    ),
    "redundant dropout": (
        lambda: [L.Dense(8, activation="relu", name="a"), L.Dropout(0.5, name="d"), L.Dense(8, name="b")],
        {"before": "a a_bn a_activation b b_bn", "after": "a a_bn d b", "none": "a d b"},
    ),
    "normalized already": (
        lambda: [
            *(L.Dense(8, name="a"), L.BatchNormalization(name="n"), L.ReLU(name="f")),
            *(L.Dense(8, activation="tanh", name="b"), L.LayerNormalization(name="m")),
            *(L.Dense(8, activation="tanh", name="c"),),
        ],
        {"before": "a n f b m c", "after": "a n f b m c", "auto": "a n f b m c"},
    ),
    "selu": (
        lambda: [L.Dense(8, activation="selu", name="a"), L.AlphaDropout(0.2, name="d"), L.Dense(8, name="b")],
        {"auto": "a d b b_bn"},
    ),
    "softmax inside": (
        lambda: [L.Dense(8, activation="softmax", name="a"), L.Dense(8, activation="relu", name="b")],
        {"auto": "a b b_bn b_activation", "before": "a a_bn a_activation b b_bn b_activation"},
    ),
    "a function of the user's own": (
        lambda: [L.Dense(8, activation=lambda x: x * x, name="a")],
        {"auto": "a a_bn a_activation", "after": "a a_bn"},
    ),
}


@pytest.mark.parametrize(
    ("chain", "position"), [(chain, position) for chain, (_, table) in CHAINS.items() for position in table]
)
def test_chain(chain, position):
    layers, table = CHAINS[chain]
    source = sequential(*layers())
    before = snapshot(source)
    result = kerasbn.rewrite(source, position=position)
    assert names(result) == f"{table[position]} head"
    inserted = [layer for layer in result.layers if layer.name.endswith("_bn")]
    assert all(isinstance(layer, kerasbn.layers.BatchNormalization) for layer in inserted)
    assert type(result) is keras.Sequential
    assert_same_function(source, result)
    assert snapshot(source) == before


LINEAR = {
    "Dense": (lambda **k: L.Dense(6, **k), IMAGE, -1),
    "EinsumDense": (lambda **k: L.EinsumDense("abcd,de->abce", (8, 8, 6), bias_axes="e", **k), IMAGE, -1),
    "Conv1D": (lambda **k: L.Conv1D(6, 3, **k), SEQUENCE, -1),
    "Conv2D": (lambda **k: L.Conv2D(6, 3, **k), IMAGE, -1),
    "Conv2D grouped": (lambda **k: L.Conv2D(6, 3, groups=2, **k), IMAGE, -1),
    "Conv3D": (lambda **k: L.Conv3D(6, 3, **k), VOLUME, -1),
    "Conv1DTranspose": (lambda **k: L.Conv1DTranspose(6, 3, strides=2, **k), SEQUENCE, -1),
    "Conv2DTranspose": (lambda **k: L.Conv2DTranspose(6, 3, padding="same", **k), IMAGE, -1),
    "Conv3DTranspose": (lambda **k: L.Conv3DTranspose(6, 3, **k), VOLUME, -1),
    "DepthwiseConv1D": (lambda **k: L.DepthwiseConv1D(3, depth_multiplier=2, **k), SEQUENCE, -1),
    "DepthwiseConv2D": (lambda **k: L.DepthwiseConv2D(3, **k), IMAGE, -1),
    "SeparableConv1D": (lambda **k: L.SeparableConv1D(6, 3, **k), SEQUENCE, -1),
    "SeparableConv2D": (lambda **k: L.SeparableConv2D(6, 3, **k), IMAGE, -1),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("kind", LINEAR)
def test_every_linear_layer(kind, position, bias):
    make, shape, axis = LINEAR[kind]
    no_bias = {"bias_axes": None} if kind == "EinsumDense" else {"use_bias": False}
    if kind == "EinsumDense" and not bias:
        layer = L.EinsumDense("abcd,de->abce", (8, 8, 6), activation="relu", name="a")
    else:
        layer = make(activation="relu", name="a", **({} if bias else no_bias))
    source = sequential(layer, L.Flatten(name="flat"), shape=shape)
    result = kerasbn.rewrite(source, position=position)
    expected = "a a_bn a_activation flat head" if position == "before" else "a a_bn flat head"
    assert names(result) == expected
    assert result.get_layer("a_bn").axis == axis
    assert (result.get_layer("a").bias is not None) == (bias and position == "after")
    assert_same_function(source, result)


def test_channels_first_normalizes_axis_1():
    # The CPU has no channels_first convolution: the plan is built, not run.
    source = sequential(
        L.Conv2D(6, 3, data_format="channels_first", activation="relu", name="a"), L.Flatten(), shape=(4, 8, 8)
    )
    result = kerasbn.rewrite(source, position="before")
    assert result.get_layer("a_bn").axis == 1
    assert result.get_layer("a_bn").gamma.shape == (6,)


@pytest.mark.parametrize(("width", "keeps_bias"), [(8, True), (9, False)])
def test_a_bias_that_keras_adds_elsewhere_stays(width, keeps_bias):
    source = sequential(
        L.Conv2D(6, 3, data_format="channels_first", name="a"), L.ReLU(), L.Flatten(), shape=(4, 8, width)
    )
    result = kerasbn.rewrite(source, position="before")
    assert result.get_layer("a").use_bias == keeps_bias
    inputs = random_inputs(source)
    expected, got = (tf.function(model, jit_compile=True)(inputs) for model in (source, result))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def _residual():
    x = inputs = keras.Input((8,), name="in")
    y = L.Dense(8, activation="relu", name="a")(x)
    y = L.Dense(8, name="b")(y)
    x = L.Add(name="add")([x, y])
    x = L.ReLU(name="f")(x)
    return keras.Model(inputs, L.Dense(3, name="head")(x))


def _operations():
    inputs = keras.Input((8,), name="in")
    x = L.Dense(8, name="a")(inputs)
    x = keras.ops.relu(x)
    y = keras.activations.tanh(L.Dense(8, name="b")(x * 0.5 + 1.0))
    return keras.Model(inputs, L.Dense(3, name="head")(keras.ops.concatenate([x, y], axis=-1)))


def _several():
    image, features = keras.Input((8, 8, 4), name="image"), keras.Input((5,), name="features")
    x = L.Conv2D(6, 3, activation="relu", name="a")(image)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    y = L.Dense(6, activation="tanh", name="b")(features)
    z = L.Concatenate(name="join")([x, y])
    outputs = {"class": L.Dense(3, activation="softmax", name="class")(z), "score": L.Dense(1, name="score")(z)}
    return keras.Model({"image": image, "features": features}, outputs)


def _shared():
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    layer = L.Dense(6, activation="relu", name="a")
    return keras.Model([left, right], L.Dense(2, name="head")(L.Subtract(name="sub")([layer(left), layer(right)])))


def _forked():
    inputs = keras.Input((8,), name="in")
    x = L.Dense(8, name="a")(inputs)
    return keras.Model(inputs, L.Dense(2, name="head")(L.Multiply(name="gated")([L.ReLU(name="f")(x), x])))


GRAPHS = {
    ("residual", "before"): (
        _residual,
        "in>a a>a_bn a_bn>a_activation a_activation>b b>b_bn b_bn>add in>add add>f f>head",
    ),
    ("residual", "after"): (_residual, "in>a a>a_bn a_bn>b b>add in>add add>f f>head"),
    ("several inputs and outputs", "auto"): (
        _several,
        "image>a a>a_bn a_bn>a_activation a_activation>pool pool>join "
        "features>b b>b_bn b_bn>join join>class join>score",
    ),
    ("twins", "before"): (_shared, "left>a right>a a>a_bn a_bn>a_activation a_activation>sub sub>head"),
    ("twins", "after"): (_shared, "left>a right>a a>a_bn a_bn>sub sub>head"),
    ("forked", "before"): (_forked, "in>a a>a_bn a_bn>f f>gated a_bn>gated gated>head"),
    ("forked", "after"): (_forked, "in>a a>f f>a_bn a_bn>gated a>gated gated>head"),
}


@pytest.mark.parametrize(("graph", "position"), GRAPHS)
def test_graph(graph, position):
    make, expected = GRAPHS[graph, position]
    source = randomize(make())
    before = snapshot(source)
    result = kerasbn.rewrite(source, position=position)
    assert wiring(result) == set(expected.split())
    assert result.name == source.name
    assert [tensor.name for tensor in result.inputs] == [tensor.name for tensor in source.inputs]
    assert result.output_names == source.output_names
    assert_same_function(source, result)
    assert snapshot(source) == before


def test_operations_in_the_graph_are_call_sites_like_any_other():
    source = randomize(_operations())
    result = kerasbn.rewrite(source, position="auto")
    relu, tanh = (next(n for n in _operation_names(source) if n.startswith(kind)) for kind in ("relu", "tanh"))
    assert {"a>a_bn", f"a_bn>{relu}", f"b>{tanh}", f"{tanh}>b_bn"} <= wiring(result)
    assert_same_function(source, result)


def _operation_names(model):
    return [operation.name for operation in model.operations]


@pytest.mark.parametrize(("shared", "count"), [("auto", 1), ("per_call", 2), ("shared", 1)])
def test_how_many_normalizations_a_shared_layer_gets(shared, count):
    source = randomize(_shared())
    for position in ("before", "after"):
        result = kerasbn.rewrite(source, position=position, shared=shared)
        assert names(result).count("_bn") == count
        assert ("a>a_bn_1" in wiring(result)) == (count == 2)
        assert_same_function(source, result)


def test_structure_of_inputs_and_outputs_is_kept():
    source = randomize(_several())
    result = kerasbn.rewrite(source)
    assert list(result.input) == list(source.input)
    assert list(result.output) == list(source.output)


RULES = {
    "one layer": ([("b", "after")], "a a_bn a_activation b b_bn c c_bn c_activation head"),
    "a glob": ([("?", "after")], "a a_bn b b_bn c c_bn head"),
    "the first match wins": ([("a", "skip"), ("*", "after")], "a b b_bn c c_bn head head_bn"),
    "the head, where asked": (
        [("head", "before"), ("*", "skip")],
        "a b c head head_bn head_activation",
    ),
    "none": ([("[ab]", "none")], "a b c c_bn c_activation head"),
}


@pytest.mark.parametrize("case", RULES)
def test_rules(case):
    rules, expected = RULES[case]
    source = sequential(*(L.Dense(8, activation="relu", name=name) for name in "abc"))
    result = kerasbn.rewrite(source, rules=rules)
    assert names(result) == expected
    assert_same_function(source, result)


def test_a_rule_reaches_an_activation_that_follows_no_linear_layer():
    result = kerasbn.rewrite(randomize(_residual()), rules=[("f", "after")])
    assert {"f>f_bn", "f_bn>head"} <= wiring(result)
    result = kerasbn.rewrite(randomize(_residual()), rules=[("f", "before")])
    assert {"add>f_bn", "f_bn>f", "f>head"} <= wiring(result)


def _pre_activation(merge=L.Add, project=False):
    """Two blocks of He et al. (2016): what is added goes on as it is, and through an activation into the next block."""
    x = inputs = keras.Input((8,), name="in")
    x = L.Dense(8, name="stem")(x)
    for block in "12":
        shortcut = L.Dense(8, name=f"project{block}")(x) if project else x
        y = L.ReLU(name=f"f{block}")(x)
        y = L.Dense(8, activation="relu", name=f"a{block}")(y)
        x = merge(name=f"join{block}")([shortcut, L.Dense(8, name=f"b{block}")(y)])
    x = L.ReLU(name="f")(x)
    return keras.Model(inputs, L.Dense(3, name="head")(x))


@pytest.mark.parametrize("merge", [L.Add, L.Concatenate])
def test_pre_activation_networks_are_normalized_ahead_of_the_activation_in_the_branch_alone(merge):
    source = randomize(_pre_activation(merge))
    result = kerasbn.rewrite(source)
    edges = wiring(result)
    assert {"join1>f2_bn", "f2_bn>f2", "join1>join2", "join2>f_bn", "f_bn>f", "b1>join1", "b2>join2"} <= edges
    reasons = {skip.site: skip.reason for skip in kerasbn.plan(source).skips}
    assert reasons["b1#0"] == reasons["b2#0"] == Reason.COVERED
    assert_same_function(source, result)


def test_blocks_with_projections_of_the_sum_are_normalized_behind_each_layer():
    edges = wiring(kerasbn.rewrite(_pre_activation(project=True)))
    assert {"b1>b1_bn", "b1_bn>join1", "join1>f2", "project2>project2_bn"} <= edges


def _squeeze_excite():
    inputs = keras.Input((8, 8, 4), name="in")
    x = L.Conv2D(8, 3, activation="relu", name="a")(inputs)
    gate = L.GlobalAveragePooling2D(name="pool")(x)
    gate = L.Dense(2, activation="relu", name="squeeze")(gate)
    gate = L.Dense(8, activation="sigmoid", name="excite")(gate)
    x = L.Multiply(name="scale")([x, L.Reshape((1, 1, 8), name="reshape")(gate)])
    return keras.Model(inputs, L.Dense(3, name="head")(L.Flatten(name="flat")(x)))


def _pooled_gate():
    """A gated unit behind a pooling: no features are there to be scaled, and neither half is a squeeze-excite gate."""
    inputs = keras.Input((6, 4), name="in")
    x = L.GlobalAveragePooling1D(name="pool")(inputs)
    gate = L.Dense(8, activation="sigmoid", name="gate")(x)
    x = L.Multiply(name="scale")([gate, L.Dense(8, activation="relu", name="value")(x)])
    return keras.Model(inputs, L.Dense(3, name="head")(x))


def _pooled_highway():
    inputs = keras.Input((6, 4), name="in")
    pooled = L.GlobalAveragePooling1D(name="pool")(inputs)
    gate = L.Dense(4, activation="sigmoid", name="gate")(pooled)
    x = gate * L.Dense(4, activation="relu", name="value")(pooled) + (1.0 - gate) * pooled
    return keras.Model(inputs, L.Dense(3, name="head")(x))


def _attention():
    inputs = keras.Input((6,), dtype="int32", name="in")
    x = L.Embedding(20, 8, name="embedding")(inputs)
    query, key = L.Dense(8, name="query")(x), L.Dense(8, name="key")(x)
    x = L.Attention(name="attention")([query, key])
    x = L.MultiHeadAttention(2, 4, name="heads")(x, x)
    return keras.Model(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling1D(name="pool")(x)))


def _transformer_block():
    x = inputs = keras.Input((8,), name="in")
    y = L.LayerNormalization(name="norm")(x)
    y = L.Dense(16, activation="gelu", name="a")(y)
    y = L.Dense(8, name="b")(L.Dropout(0.1, name="d")(y))
    x = L.Add(name="add")([x, y])
    return keras.Model(inputs, L.Dense(3, name="head")(L.Dense(8, activation="relu", name="c")(x)))


SKIPS = {
    "inside a transformer's block": (_transformer_block, {"a#0": Reason.NORMALIZED, "b#0": Reason.NORMALIZED}),
    "head": (_residual, {"head#0": Reason.OUTPUT, "f#0": Reason.NOT_AFTER_LINEAR}),
    "gate": (_squeeze_excite, {"squeeze#0": Reason.SQUEEZE_EXCITE, "excite#0": Reason.SQUEEZE_EXCITE}),
    "attention": (
        _attention,
        {
            "embedding#0": Reason.EMBEDDING,
            "query#0": Reason.ATTENTION,
            "key#0": Reason.ATTENTION,
            "heads#0": Reason.ATTENTION,
        },
    ),
    "selu": (
        lambda: sequential(L.Dense(8, activation="selu", name="a")),
        {"a#0": Reason.SELF_NORMALIZING},
    ),
    "softmax": (lambda: sequential(L.Dense(8, activation="softmax", name="a")), {"a#0": Reason.ACTIVATION}),
    "normalized": (
        lambda: sequential(L.Dense(8, name="a"), L.ReLU(name="f"), L.BatchNormalization(name="n")),
        {"a#0": Reason.NORMALIZED, "f#0": Reason.NORMALIZED},
    ),
    "spectral": (
        lambda: sequential(L.SpectralNormalization(L.Dense(8, name="inner"), name="a")),
        {"a#0": Reason.NORMALIZED},
    ),
    "recurrent": (lambda: sequential(L.LSTM(8, name="a"), shape=SEQUENCE), {"a#0": Reason.RECURRENT}),
    "no channel axis": (
        lambda: sequential(L.EinsumDense("abc,cd->adb", (8, 10), name="a"), L.Flatten(), shape=SEQUENCE),
        {"a#0": Reason.CHANNEL_AXIS},
    ),
}


@pytest.mark.parametrize("case", SKIPS)
def test_what_is_left_alone_has_its_reason(case):
    make, expected = SKIPS[case]
    plan = kerasbn.plan(make())
    reasons = {skip.site: skip.reason for skip in plan.skips}
    assert expected.items() <= reasons.items()
    assert not {edit.site for edit in plan.edits if edit.kind == "insert"} & expected.keys()


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ({"position": "none"}, "0 normalized now, 1 normalized already, 1 left alone (1 position)."),
        (
            {"position": "none", "existing": "remove"},
            "0 normalized now, 0 normalized already, 2 left alone (2 position).",
        ),
        ({"existing": "remove"}, "1 normalized now, 0 normalized already, 1 left alone (1 output)."),
        (
            {},
            "0 normalized now, 1 normalized already, 1 left alone (1 output). "
            "A rule insists on one: rules=[('GLOB', 'before')].",
        ),
    ],
)
def test_outcome(options, outcome):
    model = sequential(L.Dense(8, name="a"), L.BatchNormalization(name="n"), L.ReLU(name="f"))
    assert kerasbn.plan(model, **options).outcome == f"2 linear layers: {outcome}"


@pytest.mark.parametrize("make", [_pooled_gate, _pooled_highway])
def test_a_gated_unit_behind_a_pooling_is_no_squeeze_excite_gate(make):
    assert {"gate>gate_bn", "value>value_bn"} <= wiring(kerasbn.rewrite(make()))


# Rules, and what a note says of them; `None`: there is none, as they bring a normalization.
NOTED_RULES = {
    "an attention": (_attention, ("heads", "before"), "heads#0: attention is left as it is"),
    "a sum": (_transformer_block, ("add", "after"), "add#0: Add is nothing that positions are for"),
    "no activation": (_attention, ("query", "after"), "query#0: no activation follows"),
    "a projection": (_attention, ("query", "before"), None),
    "a gate": (_squeeze_excite, ("excite", "before"), None),
    "an activation": (_residual, ("f", "before"), None),
    "not that one": (_attention, ("heads", "skip"), None),
    "some of them": (_attention, ("*", "before"), None),
    "what is named like an input": (
        _attention,
        ("[ie]*", "before"),
        "embedding#0: embeddings are looked up, not computed",
    ),
    "a normalization": (
        _transformer_block,
        ("norm", "before"),
        "norm#0: LayerNormalization is nothing that positions are for",
    ),
}


@pytest.mark.parametrize("case", NOTED_RULES)
def test_rules_that_put_nothing_are_noted(case):
    make, rule, message = NOTED_RULES[case]
    expected = () if message is None else (f"The rule {rule!r} puts no normalization anywhere. {message}.",)
    assert kerasbn.plan(make(), rules=[rule]).notes == expected


@pytest.mark.parametrize(
    ("position", "reason"), [("none", Reason.POSITION), ("after", Reason.NO_ACTIVATION), ("before", None)]
)
def test_reason_by_position(position, reason):
    plan = kerasbn.plan(sequential(L.Dense(8, name="a")), position=position)
    assert {skip.site: skip.reason for skip in plan.skips}.get("a#0") == reason


def test_tied_weights_are_left_alone():
    first, second = L.Dense(12, name="first"), L.Dense(12, name="second")
    inputs = keras.Input((12,), name="in")
    first.build((None, 12))
    second.build((None, 12))
    second._tracker.unlock()
    second._kernel = first._kernel
    second._trainable_variables[:] = [first._kernel, second.bias]
    source = keras.Model(inputs, L.Dense(3, name="head")(second(first(inputs))))
    plan = kerasbn.plan(source, copy=False)
    assert {skip.site: skip.reason for skip in plan.skips}["first#0"] == Reason.TIED_WEIGHTS
    assert_same_function(source, plan.apply())


def test_a_rule_that_is_a_path_is_for_that_layer():
    source = sequential(L.Dense(8, activation="relu", name="fc[1]"), L.Dense(8, activation="relu", name="fc1"))
    plan = kerasbn.plan(source, position="none", rules=[("fc[1]", "after")])
    assert {edit.site for edit in plan.edits} == {"fc[1]#0", "fc1#0"}  # the second as a glob
    source.get_layer("fc1").name = "fc2"
    plan = kerasbn.plan(source, position="none", rules=[("fc[1]", "after")])
    assert {edit.site for edit in plan.edits} == {"fc[1]#0"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_operations_are_normalized_in_the_type_of_their_values(policy):
    def convolved(x, name):
        return L.Conv1D(4, 3, padding="same", dtype=policy, name=name)(x)

    inputs = keras.Input((6, 4))
    x = convolved(inputs, "stem")
    for number in range(2):
        y = convolved(keras.ops.relu(x), f"first_{number}")
        x = x + convolved(keras.ops.relu(y), f"second_{number}")
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(keras.ops.relu(x))))
    plan = kerasbn.plan(source)
    ahead_of_operations = [edit for edit in plan.edits if edit.site.startswith("relu")]
    assert ahead_of_operations
    result = plan.apply()
    assert {layer.dtype_policy.name for layer in result.layers if "_bn" in layer.name} == {policy}
    assert_same_function(source, result, tolerance=2e-2 if "mixed" in policy else 1e-5)
