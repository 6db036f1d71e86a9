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

Replicas that share their statistics add up what each has found in its own share of the batch. The
gradient of x is that of the sum of what the replicas make of it, the gradients of gamma and beta are
those of the replica's own outputs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from kerasbn.serializable._kernels.arrangement import Arranged, arrange


class Normalized(NamedTuple):
    """Outputs and statistics.

    Attributes:
        outputs: Of the shape and dtype of what was normalized.
        mean: Of shape `(groups, channels)`, in the dtype of the statistics.
        variance: Likewise, the biased one.
        count: The number of values behind them, m: a number, a scalar, or of shape `(groups, 1 or channels)`.
    """

    outputs: Any
    mean: Any
    variance: Any
    count: Any


class Moments(NamedTuple):
    """What the values of a channel come to, in the form of the statistics.

    Attributes:
        mean: The mean.
        variance: The biased variance.
        count: The number of values: a scalar, or with a mask in the form of the statistics.
    """

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


Total = Callable[[Sequence[Any]], Sequence[Any]]
"""Adds sums up over the replicas that share their statistics."""


def own(sums: Sequence[Any]) -> Sequence[Any]:
    """The total over one replica."""
    return sums


def at_once(all_reduce: Callable[[Any], Any]) -> Total:
    """Several sums added up with one collective, which takes a vector."""

    def total(sums: Sequence[Any]) -> Sequence[Any]:
        vectors = [ops.reshape(each, (-1,)) for each in sums]
        flat, ends = all_reduce(ops.concatenate(vectors)), itertools.accumulate(each.shape[0] for each in vectors)
        return [
            ops.reshape(flat[end - vector.shape[0] : end], each.shape)
            for each, vector, end in zip(sums, vectors, ends, strict=True)
        ]

    return total


def moments(batch: Arranged, total: Total = own) -> Moments:
    """The moments of each channel of each group."""
    values = _values(batch.x)
    count, sums = total((count_of(batch), _sum(values, batch)))
    divisor = ops.maximum(count, 1)
    mean = sums / divisor
    (squares,) = total((_sum(ops.square(values - mean), batch),))
    return Moments(mean, squares / divisor, count)


def moments_at_once(batch: Arranged, total: Total) -> Moments:
    """The same with one collective in the place of two.

    Here it is E[x^2] - E[x]^2 after all, but in float64 and of sums that are exact: those of x and x^2, from those of
    what is left of x without the mean of the replica's own values.
    """
    count, values = count_of(batch), _values(batch.x)
    mean = _sum(values, batch) / ops.maximum(count, 1)
    centred = values - mean
    found = (count, mean, _sum(centred, batch), _sum(ops.square(centred), batch))
    count, mean, rest, squares = (ops.cast(each, "float64") for each in found)
    values, squares = count * mean + rest, squares + 2 * mean * rest + count * ops.square(mean)
    count, values, squares = total((count, values, squares))
    divisor = ops.maximum(count, 1)
    mean = values / divisor
    variance = ops.maximum(squares / divisor - ops.square(mean), 0)
    return Moments(*(ops.cast(each, found[0].dtype) for each in (mean, variance, count)))


@dataclasses.dataclass(frozen=True)
class Engine:
    """What a backend brings to the algebra; by default one replica, and nothing to a compiler.

    Attributes:
        moments: Finds those of a batch.
        total: Adds sums up over the replicas that share their statistics.
        afresh: The batch and its mean as they are, only that a compiler works x - mean out anew, and does not keep it
            in memory from an earlier pass.
    """

    moments: Callable[[Arranged], Moments] = moments
    total: Total = own
    afresh: Callable[[Arranged, Any], tuple[Arranged, Any]] = lambda batch, mean: (batch, mean)


ALONE = Engine()


def replicated(all_reduce: Callable[[Any], Any]) -> Engine:
    """Replicas that share their statistics, with one collective forward and one backward.

    Args:
        all_reduce: Adds a vector of float64 up over the replicas.
    """
    total = at_once(all_reduce)
    return Engine(lambda batch: moments_at_once(batch, total), total)


def dtype_of_statistics(x: Any) -> str:
    """The dtype in which sums over x are taken."""
    return "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"


def normalize(
    inputs: Any,
    gamma: Any,
    beta: Any,
    epsilon: float,
    axis: int,
    mask: Any = None,
    group_size: int | None = None,
    engine: Engine = ALONE,
) -> Normalized:
    """Normalize inputs of any rank. The backend derives the gradient."""
    batch = arrange(inputs, axis, mask=mask, group_size=group_size)
    return restored(forward(batch, gamma, beta, epsilon, engine)[0], batch)


def forward(batch: Arranged, gamma: Any, beta: Any, epsilon: float, engine: Engine = ALONE) -> tuple[Normalized, Saved]:
    """Normalize each channel of each group. The results are in the form of the batch, not of its inputs."""
    mean, variance, count = engine.moments(batch)
    inverse = ops.rsqrt(variance + epsilon)
    scale = inverse * batch.by_channel(gamma)
    outputs = _centred(batch, mean) * scale + batch.by_channel(beta)
    results = Normalized(ops.cast(outputs, batch.x.dtype), mean, variance, count)
    return results, Saved(mean, inverse, scale, count)


def backward(dy: Any, batch: Arranged, saved: Saved, engine: Engine = ALONE) -> tuple[Any, Any, Any]:
    """The gradients of x, gamma and beta, from the gradient of the outputs and what `forward` saved."""
    mean, inverse, scale, count = saved
    dy = _values(dy)
    batch, mean = engine.afresh(batch, mean)
    unmasked = dataclasses.replace(batch, mask=None)
    dbeta, dgamma = _sum(dy, unmasked), _sum(dy * _centred(batch, mean), unmasked) * inverse
    of_all = engine.total((dbeta, dgamma))
    divisor = ops.maximum(count, 1)
    through_mean, through_variance = scale * of_all[0] / divisor, scale * inverse * of_all[1] / divisor
    batch, mean = engine.afresh(batch, mean)
    through_statistics = through_mean + _centred(batch, mean) * through_variance
    dx = dy * scale - _counting(through_statistics, batch.mask)
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


def all_finite(mean: Any, variance: Any) -> Any:
    """Whether statistics are finite throughout."""
    return ops.all(ops.isfinite(mean + variance))


def moved(moving: Any, batch: Any, rate: Any, seen: Any) -> Any:
    """What a moving statistic becomes."""
    moving, rate = ops.cast(moving, batch.dtype), ops.cast(rate, batch.dtype)
    return ops.where(seen, moving * (1.0 - rate) + batch * rate, moving)


def _centred(batch: Arranged, mean: Any) -> Any:
    return _values(batch.x) - mean


def _values(x: Any) -> Any:
    return ops.cast(x, dtype_of_statistics(x))


def _sum(values: Any, batch: Arranged) -> Any:
    """The sum of what counts, with sizes of 1 on the axes of the sums."""
    return ops.sum(_counting(values, batch.mask), axis=batch.axes, keepdims=True)


def _counting(x: Any, mask: Any) -> Any:
    """Zero where the mask says so, even where x is not finite."""
    return x if mask is None else ops.where(mask, x, ops.zeros_like(x))
