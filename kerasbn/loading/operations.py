"""Functions of TensorFlow that models of Keras 2 call, as operations of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops


def _as(value: Any, other: Any) -> Any:
    """A constant in the type of a tensor, as TensorFlow takes it; tensors as they are."""
    if isinstance(value, keras.KerasTensor) or not isinstance(other, keras.KerasTensor) or isinstance(value, bool):
        return value
    if other.dtype == "bfloat16" or not isinstance(value, list | tuple):
        return value
    return np.asarray(value, other.dtype)


def _binary(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda x, y, name=None: operation(_as(x, y), _as(y, x))


def _unary(operation: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda x, name=None: operation(x)


def _reduction(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis=None, keepdims=False, name=None: operation(x, axis=_axes(axis), keepdims=keepdims)


def _axes(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _getitem(x: Any, slice_spec: Any) -> Any:
    parts = slice_spec if isinstance(slice_spec, list) else [slice_spec]
    return ops.get_item(x, tuple(map(_slice, parts)))


def _slice(part: Any) -> Any:
    if isinstance(part, dict) and part.keys() == {"start", "stop", "step"}:
        return slice(part["start"], part["stop"], part["step"])
    if isinstance(part, dict) and part.get("class_name") == "__ellipsis__":
        return Ellipsis
    return part


def _split(value: Any, num_or_size_splits: Any, axis: int = 0, num: None = None, name: Any = None) -> Any:
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis=axis)
    return ops.split(value, [int(each) for each in np.cumsum(num_or_size_splits)[:-1]], axis=axis)


def _matmul(
    a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False, name: Any = None, **other: Any
) -> Any:
    if any(other.values()):
        raise ValueError(f"tf.matmul with {', '.join(name for name, value in other.items() if value)}")
    a, b = (ops.swapaxes(each, -1, -2) if turned else each for each, turned in ((a, transpose_a), (b, transpose_b)))
    return ops.matmul(a, b)


def _transpose(a: Any, perm: Any = None, conjugate: bool = False, name: Any = None) -> Any:
    if conjugate:
        raise ValueError("tf.transpose with conjugate")
    return ops.transpose(a, perm)


def _pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0, name: Any = None) -> Any:
    mode = mode.lower()
    return ops.pad(tensor, paddings, mode, **({"constant_values": constant_values} if mode == "constant" else {}))


def _where(condition: Any, x: Any = None, y: Any = None, name: Any = None) -> Any:
    if x is None or y is None:
        raise ValueError("tf.where with a condition alone")
    return ops.where(condition, _as(x, y), _as(y, x))


def _squeeze(x: Any, axis: Any = None, name: Any = None) -> Any:
    return ops.squeeze(x, axis=None if axis == [] else _axes(axis))


def _l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12, name: Any = None) -> Any:
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=_axes(axis), keepdims=True), epsilon))


def _resize(images: Any, size: Any, method: str = "bilinear", **other: Any) -> Any:
    if method not in ("bilinear", "nearest") or any(value for name, value in other.items() if name != "name"):
        raise ValueError(f"tf.image.resize with method={method!r}, {', '.join(other)}")
    return ops.image.resize(images, tuple(size), interpolation=method, data_format="channels_last")


def _clip(t: Any, clip_value_min: Any, clip_value_max: Any, name: Any = None) -> Any:
    return ops.clip(t, clip_value_min, clip_value_max)


def _leaky_relu(features: Any, alpha: float = 0.2, name: Any = None) -> Any:
    return ops.leaky_relu(features, negative_slope=alpha)


def _gelu(features: Any, approximate: bool = False, name: Any = None) -> Any:
    return ops.gelu(features, approximate=approximate)


def _softmax(logits: Any, axis: Any = None, name: Any = None) -> Any:
    return ops.softmax(logits, axis=-1 if axis is None else axis)


def _log_softmax(logits: Any, axis: Any = None, name: Any = None) -> Any:
    return ops.log_softmax(logits, axis=-1 if axis is None else axis)


def _silu(features: Any, beta: float = 1.0) -> Any:
    return features * ops.sigmoid(beta * features) if beta != 1.0 else ops.silu(features)


def _cast(x: Any, dtype: str, name: Any = None) -> Any:
    return ops.cast(x, dtype)


def _concat(values: Any, axis: int, name: Any = None) -> Any:
    return ops.concatenate(values, axis=axis)


def _stack(values: Any, axis: int = 0, name: Any = None) -> Any:
    return ops.stack(values, axis=axis)


def _unstack(value: Any, num: Any = None, axis: int = 0, name: Any = None) -> Any:
    return ops.unstack(value, num, axis=axis)


def _reshape(tensor: Any, shape: Any, name: Any = None) -> Any:
    return ops.reshape(tensor, shape)


def _expand_dims(input: Any, axis: int, name: Any = None) -> Any:  # noqa: A002
    return ops.expand_dims(input, axis)


def _tile(input: Any, multiples: Any, name: Any = None) -> Any:  # noqa: A002
    return ops.tile(input, multiples)


def _arg(operation: Callable[..., Any]) -> Callable[..., Any]:
    def call(input: Any, axis: Any = None, output_type: str = "int64", name: Any = None) -> Any:  # noqa: A002
        return ops.cast(operation(input, axis=0 if axis is None else axis), output_type)

    return call


def _like(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda input, dtype=None, name=None, layout=None: operation(input, dtype=dtype)  # noqa: A006


def _cumsum(x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: Any = None) -> Any:
    if exclusive or reverse:
        raise ValueError("tf.cumsum with exclusive or reverse")
    return ops.cumsum(x, axis=axis)


def _gather(params: Any, indices: Any, axis: Any = None, batch_dims: int = 0, **other: Any) -> Any:
    if batch_dims:
        raise ValueError("tf.gather with batch_dims")
    return ops.take(params, indices, axis=axis or 0)


def _einsum(equation: str, *inputs: Any, **other: Any) -> Any:
    return ops.einsum(equation, *inputs)


def _depth_to_space(input: Any, block_size: int, data_format: str = "NHWC", name: Any = None) -> Any:  # noqa: A002
    if data_format != "NHWC":
        raise ValueError(f"tf.nn.depth_to_space with data_format={data_format!r}")
    _, height, width, channels = input.shape
    rest = channels // block_size**2
    x = ops.reshape(input, (-1, height, width, block_size, block_size, rest))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * block_size, width * block_size, rest))


_BINARY = {
    "add": ops.add,
    "subtract": ops.subtract,
    "multiply": ops.multiply,
    "truediv": ops.true_divide,
    "divide": ops.true_divide,
    "floordiv": ops.floor_divide,
    "floormod": ops.mod,
    "mod": ops.mod,
    "pow": ops.power,
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "equal": ops.equal,
    "not_equal": ops.not_equal,
    "greater": ops.greater,
    "greater_equal": ops.greater_equal,
    "less": ops.less,
    "less_equal": ops.less_equal,
    "logical_and": ops.logical_and,
    "logical_or": ops.logical_or,
    "atan2": ops.arctan2,
    "squared_difference": lambda x, y: ops.square(ops.subtract(x, y)),
}
_UNARY = {
    "negative": ops.negative,
    "abs": ops.absolute,
    "exp": ops.exp,
    "log": ops.log,
    "log1p": ops.log1p,
    "expm1": ops.expm1,
    "sqrt": ops.sqrt,
    "rsqrt": ops.rsqrt,
    "square": ops.square,
    "sign": ops.sign,
    "reciprocal": ops.reciprocal,
    "floor": ops.floor,
    "ceil": ops.ceil,
    "sin": ops.sin,
    "cos": ops.cos,
    "tan": ops.tan,
    "sinh": ops.sinh,
    "cosh": ops.cosh,
    "asin": ops.arcsin,
    "acos": ops.arccos,
    "atan": ops.arctan,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "softplus": ops.softplus,
    "erf": ops.erf,
    "logical_not": ops.logical_not,
    "is_nan": ops.isnan,
    "log_sigmoid": ops.log_sigmoid,
}
_OF_NN = {
    "relu": ops.relu,
    "relu6": ops.relu6,
    "elu": ops.elu,
    "selu": ops.selu,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "softplus": ops.softplus,
    "softsign": ops.softsign,
}
_REDUCTIONS = {
    "mean": ops.mean,
    "sum": ops.sum,
    "max": ops.max,
    "min": ops.min,
    "prod": ops.prod,
    "any": ops.any,
    "all": ops.all,
    "std": ops.std,
    "variance": ops.var,
    "logsumexp": ops.logsumexp,
}
_OTHER: dict[str, Callable[..., Any]] = {
    "__operators__.getitem": _getitem,
    "identity": _unary(lambda x: x),
    "stop_gradient": _unary(ops.stop_gradient),
    "concat": _concat,
    "stack": _stack,
    "unstack": _unstack,
    "split": _split,
    "reshape": _reshape,
    "cast": _cast,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "tile": _tile,
    "transpose": _transpose,
    "pad": _pad,
    "where": _where,
    "clip_by_value": _clip,
    "gather": _gather,
    "einsum": _einsum,
    "linalg.matmul": _matmul,
    "math.argmax": _arg(ops.argmax),
    "math.argmin": _arg(ops.argmin),
    "math.cumsum": _cumsum,
    "math.l2_normalize": _l2_normalize,
    "linalg.l2_normalize": _l2_normalize,
    "zeros_like": _like(ops.zeros_like),
    "ones_like": _like(ops.ones_like),
    "image.resize": _resize,
    "nn.softmax": _softmax,
    "nn.log_softmax": _log_softmax,
    "nn.leaky_relu": _leaky_relu,
    "nn.gelu": _gelu,
    "nn.silu": _silu,
    "nn.swish": _silu,
    "nn.l2_normalize": _l2_normalize,
    "nn.depth_to_space": _depth_to_space,
}
TABLE: Mapping[str, Callable[..., Any]] = {
    **{f"math.{name}": _binary(operation) for name, operation in _BINARY.items()},
    **{f"__operators__.{name}": _binary(_BINARY[name]) for name in ("add", "logical_and", "logical_or")},
    "__operators__.eq": _binary(ops.equal),
    "__operators__.ne": _binary(ops.not_equal),
    **{f"math.{name}": _unary(operation) for name, operation in _UNARY.items()},
    **{f"nn.{name}": _unary(operation) for name, operation in _OF_NN.items()},
    **{f"math.reduce_{name}": _reduction(operation) for name, operation in _REDUCTIONS.items()},
    **_OTHER,
}
"""By the name below `tf.`. Each takes what Keras 2 recorded, by TensorFlow's names."""


def operation_named(name: str) -> Callable[..., Any] | None:
    """What does the same in Keras 3 as a function of TensorFlow's, `None` where nothing is known to."""
    return TABLE.get(name.removeprefix("compat.v1."))
