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


class Saved(NamedTuple):
    """What the gradient takes over from the forward pass, in the form of the statistics.

    Attributes:
        mean: The mean.
        inverse: One over the standard deviation.
        scale: Gamma over the standard deviation.
        count: The number of values, m.
    """

    mean: Any
    inverse: Any
    scale: Any
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
    return restored(forward(batch, gamma, beta, epsilon)[0], batch)


def forward(batch: Arranged, gamma: Any, beta: Any, epsilon: float, total: Total = alone) -> tuple[Normalized, Saved]:
    """Normalize each channel of each group. The results are in the form of the batch, not of its inputs."""
    values = _values(batch.x)
    count = total(count_of(batch))
    divisor = ops.maximum(count, 1)
    mean = total(_sum(values, batch)) / divisor
    centred = values - mean
    variance = total(_sum(ops.square(centred), batch)) / divisor
    inverse = ops.rsqrt(variance + epsilon)
    scale = inverse * batch.by_channel(gamma)
    outputs = centred * scale + batch.by_channel(beta)
    results = Normalized(ops.cast(outputs, batch.x.dtype), mean, variance, count)
    return results, Saved(mean, inverse, scale, count)


def backward(dy: Any, batch: Arranged, saved: Saved, total: Total = alone) -> tuple[Any, Any, Any]:
    """The gradients of x, gamma and beta, from the gradient of the outputs and what `forward` saved."""
    mean, inverse, scale, count = saved
    dy, centred = _values(dy), _values(batch.x) - mean
    unmasked = dataclasses.replace(batch, mask=None)
    dbeta, dgamma = _sum(dy, unmasked), _sum(dy * centred, unmasked) * inverse
    divisor = ops.maximum(count, 1)
    through_mean = scale * total(dbeta) / divisor
    through_variance = scale * inverse * total(dgamma) / divisor
    dx = dy * scale - _counting(through_mean + centred * through_variance, batch.mask)
    return ops.cast(dx, batch.x.dtype), batch.over_groups(dgamma), batch.over_groups(dbeta)


def restored(results: Normalized, batch: Arranged) -> Normalized:
    """Results in the form of a batch, in the form of its inputs."""
    outputs, mean, variance, count = results
    return Normalized(
        batch.restored(outputs),
        batch.by_group(mean),
        batch.by_group(variance),
        count if batch.mask is None else batch.by_group(count),
    )


def count_of(batch: Arranged) -> Any:
    """The number of values of a channel that count: a scalar, or with a mask in the form of the statistics."""
    dtype = dtype_of_statistics(batch.x)
    if batch.mask is not None:
        return ops.sum(ops.cast(batch.mask, dtype), axis=batch.axes, keepdims=True)
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
    """The sum of what counts, with sizes of 1 on the axes of the sums."""
    return ops.sum(_counting(values, batch.mask), axis=batch.axes, keepdims=True)


def _counting(x: Any, mask: Any) -> Any:
    """Zero where the mask says so, even where x is not finite."""
    return x if mask is None else ops.where(mask, x, ops.zeros_like(x))
