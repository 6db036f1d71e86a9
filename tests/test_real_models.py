"""What people's models hold beyond layers in a row: special inputs, structures, losses, policies, odd calls."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, names, random_inputs, randomize, snapshot


def _headed(inputs, x):
    return randomize(keras.Model(inputs, L.Dense(2, name="head")(x)))


def _fixed_batch():
    inputs = keras.Input(batch_shape=(4, 6), name="in")
    return _headed(inputs, L.Dense(8, activation="relu", name="a")(inputs))


def _nested_structures():
    inputs = {
        "pair": [keras.Input((6,), name="p0"), keras.Input((6,), name="p1")],
        "rest": (keras.Input((6,), name="r"), {"deep": keras.Input((6,), name="d")}),
    }
    branches = [L.Dense(8, activation="relu", name=f"a_{x.name}")(x) for x in keras.tree.flatten(inputs)]
    total = L.Add(name="sum")(branches)
    outputs = {"one": [L.Dense(2, name="h1")(total)], "two": (L.Dense(3, name="h2")(total), {"raw": total})}
    return randomize(keras.Model(inputs, outputs))


def _intermediate_tensors():
    """From the middle of one model to two places in it."""
    inputs = keras.Input((6,), name="in")
    a = L.Dense(8, activation="relu", name="a")(inputs)
    b = L.Dense(8, activation="relu", name="b")(a)
    c = L.Dense(8, activation="tanh", name="c")(b)
    keras.Model(inputs, c)
    return randomize(keras.Model(a, [L.Dense(2, name="head")(c), b]))


def _policies():
    inputs = keras.Input((6,), name="in")
    x = L.Dense(8, activation="relu", dtype="mixed_float16", name="a")(inputs)
    x = L.Dense(8, activation="relu", dtype="bfloat16", name="b")(x)
    x = L.Dense(8, activation="tanh", dtype="float64", name="c")(x)
    return randomize(keras.Model(inputs, L.Dense(2, dtype="float32", name="head")(x)))


def _numpy_integers():
    inputs = keras.Input((4, 4, 5), name="in")
    x = keras.ops.reshape(L.Dense(8, activation="relu", name="a")(inputs), (-1, np.int64(16), np.int64(8)))
    return _headed(inputs, L.Flatten(name="flat")(L.Dense(4, activation="relu", name="b")(x)))


def _called_on_its_own_output():
    inputs = keras.Input((6,), name="in")
    inner = keras.Model(inputs, L.Dense(6, name="b")(L.Dense(6, activation="relu", name="a")(inputs)), name="inner")
    return _headed(inputs, L.ReLU(name="f")(inner(inner(inner.output))))


def _same_name_in_two_models():
    def block(name):
        return keras.Sequential([keras.Input((6,)), L.Dense(6, activation="relu", name="a")], name=name)

    inputs = keras.Input((6,), name="in")
    return _headed(inputs, L.Dense(6, activation="relu", name="a")(block("second")(block("first")(inputs))))


def _without_weights():
    inputs = keras.Input((6,), name="in")
    return keras.Model(inputs, L.ReLU(name="f")(inputs))


def _without_layers():
    inputs = keras.Input((6,), name="in")
    return keras.Model(inputs, inputs)


MODELS = {
    "fixed batch": (_fixed_batch, "in a a_bn a_activation head"),
    "nested structures": (
        _nested_structures,
        "p0 p1 r d a_p0 a_p1 a_r a_d a_p0_bn a_p1_bn a_r_bn a_d_bn "
        "a_p0_activation a_p1_activation a_r_activation a_d_activation sum h1 h2",
    ),
    "from intermediate tensors": (_intermediate_tensors, None),
    "a policy of its own for each layer": (_policies, "in a a_bn a_activation b b_bn b_activation c c_bn head"),
    "a model called on its own output": (_called_on_its_own_output, None),
    "one name in several models": (_same_name_in_two_models, "in first second a a_bn a_activation head"),
    "no weights": (_without_weights, "in f"),
    "no layers": (_without_layers, "in"),
}


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
@pytest.mark.parametrize("case", MODELS)
def test_rewritten(case, copy):
    make, expected = MODELS[case]
    source = make()
    before = snapshot(source)
    inputs = random_inputs(source)
    plan = kerasbn.plan(source, copy=copy)
    result = plan.apply()
    if expected is not None:
        assert sorted(names(result).split()) == sorted(expected.split())
    tolerance = 1e-2 if case.startswith("a policy") else 1e-5
    keras.tree.assert_same_structure(source(inputs), result(inputs))
    assert_same_function(source, result, inputs, tolerance)
    assert [tensor.name for tensor in result.inputs] == [tensor.name for tensor in source.inputs]
    if copy:
        assert snapshot(source) == before


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
def test_numpy_integers_among_the_arguments_of_an_operation(copy):
    source = _numpy_integers()
    with pytest.raises(NotImplementedError):
        source.get_config()
    result = kerasbn.rewrite(source, copy=copy)
    assert {"a_bn", "b_bn"} <= set(names(result).split())
    assert_same_function(source, result)


def test_policies_of_what_is_inserted():
    result = kerasbn.rewrite(_policies())
    for name in "abc":
        assert result.get_layer(f"{name}_bn").dtype_policy == result.get_layer(name).dtype_policy


def test_layers_of_one_name_are_told_apart_by_their_paths():
    plan = kerasbn.plan(_same_name_in_two_models(), rules=[("second/a", "skip")])
    assert {skip.site: skip.reason for skip in plan.skips} == {"second/a#0": Reason.RULE, "head#0": Reason.OUTPUT}
    assert {edit.site for edit in plan.edits} == {"first/a#0", "a#0"}


@pytest.mark.tensorflow
def test_sparse_inputs():
    inputs = keras.Input((20,), sparse=True, name="in")
    source = _headed(inputs, L.Dense(8, activation="relu", name="a")(inputs))
    rows = tf.sparse.from_dense(np.eye(4, 20, dtype="float32"))
    result = kerasbn.rewrite(source, data=iter([rows]))
    assert result.inputs[0].sparse
    assert_same_function(source, result, rows)
    np.testing.assert_allclose(
        result.get_layer("a_bn").moving_mean, source.get_layer("a").kernel.numpy()[:4].mean(0), atol=1e-5
    )


@pytest.mark.tensorflow
def test_ragged_inputs():
    inputs = keras.Input((None, 4), ragged=True, name="in")
    source = _headed(inputs, L.GlobalAveragePooling1D(name="pool")(L.Dense(8, activation="relu", name="a")(inputs)))
    assert kerasbn.rewrite(source).inputs[0].ragged


def test_optional_inputs():
    class Plus(L.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

        def compute_output_shape(self, x_shape, y_shape=None):
            return x_shape

    first, second = keras.Input((6,), name="p"), keras.Input((6,), name="q", optional=True)
    x = Plus(name="plus")(first, second)
    source = _headed({"p": first, "q": second}, L.Dense(8, activation="relu", name="a")(x))
    result = kerasbn.rewrite(source)
    vector = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    for other in (None, vector):
        assert_same_function(source, result, {"p": vector, "q": other})


def test_losses_added_in_a_call_and_regularizers():
    class Penalty(L.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(keras.ops.square(x)))
            return x

    inputs = keras.Input((6,), name="in")
    x = L.Dense(8, activation="relu", kernel_regularizer="l2", activity_regularizer="l1", name="a")(inputs)
    source = _headed(inputs, Penalty(name="penalty")(x))
    result = kerasbn.rewrite(source)
    vector = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    for model in (source, result):
        model(vector, training=False)
    np.testing.assert_allclose(sorted(map(float, result.losses)), sorted(map(float, source.losses)), rtol=1e-5)
