"""Each function of TensorFlow that is known, against TensorFlow's own: values, types and shapes."""

import functools
import operator

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasbn.loading.operations import _BINARY, _OF_NN, _REDUCTIONS, _UNARY, TABLE, operation_named

pytestmark = pytest.mark.tensorflow

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 3, 4)).astype("float32")
Y = RANDOM.normal(size=(2, 3, 4)).astype("float32")
WHOLE = RANDOM.integers(-5, 5, (2, 3, 4)).astype("int32")
YES, OR_NO = X > 0, Y > 0
IMAGES = RANDOM.normal(size=(2, 4, 6, 8)).astype("float32")
POSITIVE, SHARE = np.abs(X) + 0.1, np.tanh(X)

OPERATORS = {
    "__operators__.add": operator.add,
    "__operators__.eq": tf.equal,
    "__operators__.ne": tf.not_equal,
    "__operators__.logical_and": operator.and_,
    "__operators__.logical_or": operator.or_,
}
GIVEN = {"pow": (POSITIVE, Y), "logical_and": (YES, OR_NO), "logical_or": (YES, OR_NO), "logical_not": (YES,)}
GIVEN |= dict.fromkeys(("log", "sqrt", "rsqrt", "reciprocal"), (POSITIVE,)) | {"log1p": (POSITIVE,)}
GIVEN |= dict.fromkeys(("asin", "acos"), (SHARE,))

CASES: dict[str, list[tuple[tuple, dict]]] = {
    **{f"math.{name}": [(GIVEN.get(name, (X, Y)), {})] for name in _BINARY},
    **{f"__operators__.{name}": [(GIVEN.get(name, (X, Y)), {})] for name in ("add", "logical_and", "logical_or")},
    **{f"__operators__.{name}": [((WHOLE, 3), {}), ((X, Y), {})] for name in ("eq", "ne")},
    **{f"math.{name}": [(GIVEN.get(name, (X,)), {})] for name in _UNARY},
    **{f"nn.{name}": [((3 * X,), {})] for name in _OF_NN},
    **{
        f"math.reduce_{name}": [
            ((YES if name in ("any", "all") else X,), arguments)
            for arguments in ({}, {"axis": 1}, {"axis": [0, 2], "keepdims": True}, {"axis": -1, "keepdims": True})
        ]
        for name in _REDUCTIONS
    },
    "identity": [((X,), {})],
    "stop_gradient": [((X,), {})],
    "concat": [(([X, Y],), {"axis": -1})],
    "stack": [(([X, Y],), {}), (([X, Y],), {"axis": 1})],
    "unstack": [((X,), {"axis": 1}), ((X,), {"num": 2})],
    "split": [((X, 2), {"axis": 2}), ((X,), {"num_or_size_splits": [1, 2], "axis": 1})],
    "reshape": [((X, (2, -1)), {})],
    "cast": [((X, "int32"), {}), ((WHOLE,), {"dtype": "float32"}), ((YES, "float32"), {})],
    "expand_dims": [((X,), {"axis": -1})],
    "squeeze": [((X[:, :1],), {}), ((X[:, :1, :1],), {"axis": [1]}), ((X[:, :1],), {"axis": 1})],
    "tile": [((X, [1, 2, 1]), {})],
    "transpose": [((X,), {"perm": [0, 2, 1]}), ((X,), {})],
    "pad": [
        ((X, [[0, 0], [1, 2], [0, 1]]), {}),
        ((X, [[0, 0], [1, 0], [0, 0]]), {"constant_values": 2.0}),
        ((X, [[0, 0], [1, 1], [2, 0]]), {"mode": "REFLECT"}),
    ],
    "where": [((YES, X, Y), {}), ((YES, X, 0.0), {}), ((YES,), {"x": 1.0, "y": X})],
    "clip_by_value": [((X, -0.5, 0.5), {}), ((X,), {"clip_value_min": 0.0, "clip_value_max": 1.0})],
    "gather": [((X, [2, 0]), {"axis": 1}), ((X, [1, 1]), {})],
    "einsum": [(("bij,bkj->bik", X, Y), {})],
    "linalg.matmul": [((X, Y), {"transpose_b": True}), ((X, Y), {"transpose_a": True})],
    **{f"math.{name}": [((X,), {}), ((X,), {"axis": -1, "output_type": "int32"})] for name in ("argmax", "argmin")},
    "math.cumsum": [((X,), {"axis": 1}), ((X,), {})],
    **{
        f"{module}.l2_normalize": [((X,), {"axis": -1}), ((X,), {}), ((X,), {"axis": [1, 2], "epsilon": 0.1})]
        for module in ("math", "linalg", "nn")
    },
    "zeros_like": [((X,), {}), ((X,), {"dtype": "int32"})],
    "ones_like": [((X,), {}), ((WHOLE,), {})],
    "image.resize": [((IMAGES, [8, 9]), {}), ((IMAGES, [3, 3]), {"method": "nearest"})],
    **{f"nn.{name}": [((X,), {}), ((X,), {"axis": 1})] for name in ("softmax", "log_softmax")},
    "nn.leaky_relu": [((X,), {}), ((X,), {"alpha": 0.1})],
    "nn.gelu": [((X,), {}), ((X,), {"approximate": True})],
    **{f"nn.{name}": [((X,), {}), ((X,), {"beta": 1.7})] for name in ("silu", "swish")},
    "nn.depth_to_space": [((IMAGES, 2), {})],
    "__operators__.getitem": [
        ((X,), {"slice_spec": spec})
        for spec in (
            {"start": 1, "stop": None, "step": None},
            [{"start": None, "stop": None, "step": None}, {"start": None, "stop": None, "step": 2}, 1],
            [{"class_name": "__ellipsis__"}, 0],
            [{"start": None, "stop": None, "step": None}, None],
        )
    ],
}
# With constants on either side: plain numbers, whole ones beside floats too, and lists.
for _name in ("add", "subtract", "multiply", "truediv", "floordiv", "floormod", "maximum", "greater", "atan2"):
    _three = 3.0 if _name in ("add", "truediv") else 3  # which do not take whole numbers first
    CASES[f"math.{_name}"] += [((X, 2.5), {}), ((_three, X), {}), ((X, [1.0, -2.0, 3.0, 0.5]), {})]
for _name in ("floordiv", "floormod", "mod", "add", "less", "squared_difference"):
    CASES[f"math.{_name}"] += [((WHOLE, 3), {}), ((7, 2 * WHOLE + 1), {})]


def test_all_of_them_are_tried():
    assert CASES.keys() == TABLE.keys()


def _of_tensorflow(name):
    if name == "__operators__.getitem":
        return lambda x, slice_spec: x[tuple(map(_part, slice_spec if isinstance(slice_spec, list) else [slice_spec]))]
    return OPERATORS.get(name) or functools.reduce(getattr, name.split("."), tf)


def _part(part):
    if not isinstance(part, dict):
        return part
    return Ellipsis if part.get("class_name") else slice(*(part[key] for key in ("start", "stop", "step")))


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, cases in CASES.items() for number in range(len(cases))]
)
def test_as_tensorflow(name, number):
    arguments = CASES[name][number]
    expected = _of_tensorflow(name)(
        *keras.tree.map_structure(_constant_or_tensor(tf.constant), arguments[0]),
        **{key: _constant_or_tensor(tf.constant)(value) for key, value in arguments[1].items()},
    )
    tensors = []

    def given(array):
        tensors.append((keras.Input(batch_shape=array.shape, dtype=array.dtype.name), array))
        return tensors[-1][0]

    positional = keras.tree.map_structure(_constant_or_tensor(given), arguments[0])
    named = {key: _constant_or_tensor(given)(value) for key, value in arguments[1].items()}
    outputs = operation_named(name)(*positional, **named)
    model = keras.Model([each for each, _ in tensors], outputs)
    got = model([array for _, array in tensors])
    for one, other in zip(keras.tree.flatten(got), keras.tree.flatten(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def _constant_or_tensor(tensor):
    return lambda value: tensor(value) if isinstance(value, np.ndarray) else value


REFUSED = {
    "transpose": ((X,), {"conjugate": True}),
    "where": ((YES,), {}),
    "linalg.matmul": ((X, Y), {"adjoint_a": True}),
    "math.cumsum": ((X,), {"reverse": True}),
    "gather": ((WHOLE, [0]), {"batch_dims": 1}),
    "image.resize": ((IMAGES, [2, 2]), {"method": "bicubic"}),
    "nn.depth_to_space": ((IMAGES, 2), {"data_format": "NCHW"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_keras_has_no_operation_for_is_said(name):
    positional, named = REFUSED[name]
    with pytest.raises(ValueError, match=rf"tf\.(\w+\.)?{name.rpartition('.')[2]} with"):
        operation_named(name)(*positional, **named)


def test_names_of_old():
    assert operation_named("compat.v1.transpose") is TABLE["transpose"]
    assert operation_named("math.betainc") is None
