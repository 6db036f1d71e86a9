"""Mean and variance pooled over batches.

n     = n1 + n2,   d = mean2 - mean1
mean  = mean1 + d n2/n
m2    = m2_1 + m2_2 + d^2 n1 n2/n                  (Chan, Golub and LeVeque, 1979)
var   = m2/(n - 1)                                 (Ioffe & Szegedy, 2015, Algorithm 2)
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.errors import UnsupportedModelError
from kerasbn.serializable._kernels.arrangement import spread

Norm: TypeAlias = keras.layers.BatchNormalization


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Moments of a sample, channel by channel.

    Attributes:
        count: How many values there are of each channel.
        mean: Their mean, shape `(channels,)`.
        squares: The sum of the squared distances from it, shape `(channels,)`.
    """

    count: float
    mean: Array
    squares: Array

    @property
    def variance(self) -> Array:
        """The unbiased estimate of the population's variance, zero for a single value."""
        return self.squares / max(self.count - 1, 1)

    @property
    def finite(self) -> bool:
        """Whether no value was NaN or infinite."""
        return bool(np.all(np.isfinite(self.squares)))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if count == 0:
            return self
        with np.errstate(invalid="ignore"):  # what is not finite is seen by `finite`
            distance = other.mean - self.mean
            mean = self.mean + distance * other.count / count
            squares = self.squares + other.squares + distance**2 * self.count * other.count / count
        return Moments(count, mean, squares)


def row_of(moments: Mapping[Norm, Moments], norms: Sequence[Norm]) -> Array:
    """The moments of some batch normalizations in one row of numbers: of each the count, the means, the squares."""
    empty = {norm: np.zeros(norm.moving_mean.shape[0]) for norm in norms}
    found = [moments.get(norm, Moments(0.0, empty[norm], empty[norm])) for norm in norms]
    return np.concatenate([np.zeros(0), *(np.concatenate([[each.count], each.mean, each.squares]) for each in found)])


def size_of_row(norms: Sequence[Norm]) -> int:
    """How many numbers that takes."""
    return sum(1 + 2 * int(norm.moving_mean.shape[0]) for norm in norms)


def pooled(rows: Array, norms: Sequence[Norm]) -> Iterator[tuple[Norm, Moments]]:
    """The moments in several such rows, pooled in their order, of each that got any value."""
    start = 0
    for norm in norms:
        channels = int(norm.moving_mean.shape[0])
        parts = (np.split(row[start : start + 1 + 2 * channels], [1, 1 + channels]) for row in rows)
        total = functools.reduce(operator.add, (Moments(float(count[0]), *rest) for count, *rest in parts))
        if total.count:
            yield norm, total
        start += 1 + 2 * channels


class Meter:
    """The moments of what batch normalizations get, pooled over all their calls.

    It is called as they are: `meter(norm, inputs, training=..., mask=...)`.
    """

    def __init__(self) -> None:
        self._moments: dict[Norm, Moments] = {}
        self._hidden: dict[Norm, None] = {}

    def __call__(self, norm: Norm, inputs: Any, training: Any = None, mask: Any = None) -> None:
        """Take a batch in."""
        if _keras.is_traced(inputs):
            self._hidden[norm] = None
            return
        moments = moments_of(inputs, norm.axis, mask)
        self._moments[norm] = self._moments[norm] + moments if norm in self._moments else moments

    def read(self) -> Iterator[tuple[Norm, Moments]]:
        """The moments of each that got any value.

        Raises:
            UnsupportedModelError: if a call of one was hidden.
        """
        for norm in self._hidden:
            raise hidden(norm)
        return ((norm, moments) for norm, moments in self._moments.items() if moments.count)


def hidden(norm: Norm) -> UnsupportedModelError:
    """The error for a batch normalization that is called where its values are not there yet."""
    return UnsupportedModelError(
        f"Layer {norm.name!r} is called inside of a function that is compiled on the way, such as that of "
        "keras.ops.vectorized_map, so what it gets cannot be seen. Call it on the whole batch."
    )


def moments_of(values: Any, axis: int, mask: Any = None) -> Moments:
    """The moments of one batch.

    Args:
        values: A tensor.
        axis: The axis of the channels.
        mask: A boolean tensor, `False` for what does not count, over the leading axes of the
            batch, or over all but the channels'. Defaults to `None`: all counts.
    """
    if keras.backend.standardize_dtype(values.dtype) != "float64":
        values = ops.cast(values, "float32")
    rank = len(values.shape)
    axes = [other for other in range(rank) if other != axis % rank]
    count = float(ops.size(values) // values.shape[axis])
    if mask is None:
        mean = ops.mean(values, axes, keepdims=True)
        squares = ops.sum(ops.square(values - mean), axes)
    else:
        counts = spread(mask, values, axis % rank)
        count *= int(ops.sum(ops.cast(mask, "int32"))) / max(int(ops.size(mask)), 1)
        kept = ops.where(counts, values, 0)  # a masked value may be anything, NaN as well
        mean = ops.sum(kept, axes, keepdims=True) / max(count, 1)
        squares = ops.sum(ops.where(counts, ops.square(kept - mean), 0), axes)
    return Moments(count, array_of(ops.squeeze(mean, axes)), array_of(squares))
