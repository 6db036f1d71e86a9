"""Batch normalization in operations of Keras, forward and backward.

Over the m values of a channel that the mask lets count, and for every value of it:

    mean = sum(x) / m    variance = sum((x - mean)^2) / m    s = 1 / sqrt(variance + epsilon)
    n = (x - mean) s     y = gamma n + beta

    dbeta = sum(dy)    dgamma = sum(dy n)    dx = gamma s (dy - [counts] (dbeta + n dgamma) / m)

The sums of the second line are over all values, as a masked one is normalized too and only has no
part in the statistics. The variance is a sum of squared distances from the mean: E[x^2] - E[x]^2
would lose its digits where the mean is large. All statistics are in float32, in float64 if x is.

XLA makes one loop of each step. On a CPU that loop is fast over a matrix (values, channels), which
is what channels that come last make, and for others over an innermost axis of a few values, which
it unrolls: so `after` is split up into `(after / 8, 8)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from kerasbn.layers._kernels.arrangement import arrange

Total = Callable[[Any], Any]
"""Adds a sum up over the replicas that share their statistics."""


class Normalized(NamedTuple):
    """Outputs and statistics.

    Attributes:
        outputs: Of the shape and dtype of what was normalized.
        mean: Of shape `(groups, channels)`, in the dtype of the statistics.
        variance: Likewise, the biased one.
        count: The number of values behind them, m: a scalar, or of shape `(groups, 1 or channels)`.
    """

    outputs: Any
    mean: Any
    variance: Any
    count: Any


_LANES = 8


def alone(sums: Any) -> Any:
    """The total over one replica."""
    return sums


def dtype_of_statistics(x: Any) -> str:
    """The dtype in which sums over x are taken."""
    return str(keras.backend.result_type(x.dtype, "float32"))


def normalize(
    inputs: Any, gamma: Any, beta: Any, epsilon: float, axis: int, mask: Any = None, group_size: int | None = None
) -> Normalized:
    """Normalize inputs of any rank. The backend derives the gradient."""
    arranged = arrange(inputs, axis, mask=mask, group_size=group_size)
    results = forward(arranged.x, gamma, beta, epsilon, arranged.mask)
    return results._replace(outputs=arranged.restored(results.outputs))


def forward(x: Any, gamma: Any, beta: Any, epsilon: float, mask: Any = None, total: Total = alone) -> Normalized:
    """Normalize each channel of each group of x, of shape `(groups, before, channels, after)`."""
    count = total(count_of(x, mask))
    values, mask = _values(x), _in_lanes(mask)
    divisor = ops.maximum(count, 1)
    mean = total(_sum(_counting(values, mask))) / divisor
    centred = values - _spread(mean)
    variance = total(_sum(_counting(ops.square(centred), mask))) / divisor
    outputs = centred * (_spread(ops.rsqrt(variance + epsilon)) * _spread(gamma)) + _spread(beta)
    return Normalized(ops.reshape(ops.cast(outputs, x.dtype), ops.shape(x)), mean, variance, count)


def backward(
    dy: Any, x: Any, gamma: Any, epsilon: float, saved: Normalized, mask: Any = None, total: Total = alone
) -> tuple[Any, Any, Any]:
    """The gradients of x, gamma and beta, from the gradient of the outputs."""
    values, dy, mask = _values(x), _values(dy), _in_lanes(mask)
    scale = _spread(ops.rsqrt(saved.variance + epsilon))
    normalized = (values - _spread(saved.mean)) * scale
    dbeta, dgamma = _sum(dy), _sum(dy * normalized)
    divisor = ops.maximum(saved.count, 1)
    through_statistics = _spread(total(dbeta) / divisor) + normalized * _spread(total(dgamma) / divisor)
    dx = (dy - _counting(through_statistics, mask)) * (scale * _spread(gamma))
    return ops.reshape(ops.cast(dx, x.dtype), ops.shape(x)), ops.sum(dgamma, axis=0), ops.sum(dbeta, axis=0)


def count_of(x: Any, mask: Any = None) -> Any:
    """The number of values of a channel that count: a scalar, or of shape `(groups, 1 or channels)`."""
    if mask is not None:
        return ops.sum(ops.cast(mask, dtype_of_statistics(x)), axis=(1, 3))
    _, before, _, after = ops.shape(x)
    return ops.cast(before * after, dtype_of_statistics(x))


def infer(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float, axis: int) -> Any:
    """Normalize with the statistics given. Here x may have any rank."""
    values = ops.cast(x, dtype_of_statistics(x))
    outputs = ops.batch_normalization(values, mean, variance, axis, beta, gamma, epsilon)
    return ops.cast(outputs, x.dtype)


def _values(x: Any) -> Any:
    return ops.cast(_in_lanes(x), dtype_of_statistics(x))


def _in_lanes(x: Any) -> Any:
    """In the shape `(groups, before, channels, after / lanes, lanes)`."""
    if x is None:
        return None
    *shape, after = ops.shape(x)
    lanes = _LANES if isinstance(after, int) and after % _LANES == 0 else 1
    return ops.reshape(x, (*shape, after // lanes, lanes))


def _sum(x: Any) -> Any:
    """Sums of shape `(groups, channels)`."""
    return ops.sum(x, axis=(1, 3, 4))


def _spread(statistics: Any) -> Any:
    """Numbers of shape `(groups, channels)` or `(channels,)`, to go with values in lanes."""
    return ops.reshape(statistics, (-1, 1, ops.shape(statistics)[-1], 1, 1))


def _counting(x: Any, mask: Any) -> Any:
    """Zero where the mask says so, even where x is not finite."""
    return x if mask is None else ops.where(mask, x, ops.zeros_like(x))
