"""Batch normalization in operations of Keras, forward and backward.

Over the m values of a channel that the mask lets count, and for every value of it:

    mean = sum(x) / m    variance = sum((x - mean)^2) / m    s = 1 / sqrt(variance + epsilon)
    y = gamma s (x - mean) + beta

    dbeta = sum(dy)    dgamma = s sum(dy (x - mean))
    dx = gamma s dy - [counts] gamma s (dbeta + (x - mean) s dgamma) / m

The sums of dbeta and dgamma are over all values, as a masked one is normalized too and only has no
part in the statistics. What is the same all over a channel is worked out once, before it meets the
values. The variance is a sum of squared distances from the mean: E[x^2] - E[x]^2 would lose its
digits where the mean is large. All statistics are in float32, in float64 if x is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from kerasbn.serializable._kernels.arrangement import Arranged, arrange

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
    batch = arrange(inputs, axis, mask=mask, group_size=group_size)
    results = forward(batch, gamma, beta, epsilon)
    return results._replace(outputs=batch.restored(results.outputs))


def forward(batch: Arranged, gamma: Any, beta: Any, epsilon: float, total: Total = alone) -> Normalized:
    """Normalize each channel of each group."""
    values = _values(batch.x)
    count = total(count_of(batch))
    divisor = ops.maximum(count, 1)
    mean = total(_sum(values, batch)) / divisor
    centred = values - _spread(mean, batch)
    variance = total(_sum(ops.square(centred), batch)) / divisor
    scale = ops.rsqrt(variance + epsilon) * gamma
    outputs = centred * _spread(scale, batch) + _spread(beta, batch)
    return Normalized(ops.cast(outputs, batch.x.dtype), mean, variance, count)


def backward(
    dy: Any, batch: Arranged, gamma: Any, epsilon: float, saved: Normalized, total: Total = alone
) -> tuple[Any, Any, Any]:
    """The gradients of x, gamma and beta, from the gradient of the outputs."""
    dy, centred = _values(dy), _values(batch.x) - _spread(saved.mean, batch)
    deviations = ops.rsqrt(saved.variance + epsilon)
    scale, divisor = deviations * gamma, ops.maximum(saved.count, 1)
    unmasked = dataclasses.replace(batch, mask=None)
    dbeta, dgamma = _sum(dy, unmasked), _sum(dy * centred, unmasked) * deviations
    through_mean = scale * total(dbeta) / divisor
    through_variance = scale * deviations * total(dgamma) / divisor
    through_statistics = _spread(through_mean, batch) + centred * _spread(through_variance, batch)
    dx = dy * _spread(scale, batch) - _counting(through_statistics, batch.mask)
    return ops.cast(dx, batch.x.dtype), ops.sum(dgamma, axis=0), ops.sum(dbeta, axis=0)


def count_of(batch: Arranged) -> Any:
    """The number of values of a channel that count: a scalar, or of shape `(groups, 1 or channels)`."""
    dtype = dtype_of_statistics(batch.x)
    if batch.mask is not None:
        counts = ops.sum(ops.cast(batch.mask, dtype), axis=batch.axes)
        return ops.reshape(counts, (-1, counts.shape[-1]))
    sizes = ops.shape(batch.x)
    return ops.cast(math.prod(sizes[axis] for axis in batch.axes), dtype)


def infer(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float, axis: int) -> Any:
    """Normalize with the statistics given. Here x may have any rank."""
    values = ops.cast(x, dtype_of_statistics(x))
    outputs = ops.batch_normalization(values, mean, variance, axis, beta, gamma, epsilon)
    return ops.cast(outputs, x.dtype)


def _values(x: Any) -> Any:
    return ops.cast(x, dtype_of_statistics(x))


def _sum(values: Any, batch: Arranged) -> Any:
    """The sum of what counts, of shape `(groups, channels)`."""
    sums = ops.sum(_counting(values, batch.mask), axis=batch.axes)
    return ops.reshape(sums, (-1, sums.shape[-1]))


def _spread(statistics: Any, batch: Arranged) -> Any:
    """Numbers of shape `(groups, channels)` or `(channels,)`, to go with the values of the batch."""
    shape = [1] * len(batch.x.shape)
    *groups, channels = (axis for axis in range(len(shape)) if axis not in batch.axes)
    shape[channels] = statistics.shape[-1]
    if groups:
        shape[groups[0]] = -1
    return ops.reshape(statistics, shape)


def _counting(x: Any, mask: Any) -> Any:
    """Zero where the mask says so, even where x is not finite."""
    return x if mask is None else ops.where(mask, x, ops.zeros_like(x))
