"""The maps that batch normalization amounts to at inference, and their algebra.

    y = scale * x + shift                                 an affine map
    (a after b)(x) = (a.scale * b.scale) * x + (a.scale * b.shift + a.shift)

Both arrays are in float64. They have one axis for each axis of the value, its batch aside, of the
value's size or, where they are the same all along it, of size 1; missing axes on the left are of
size 1 too, as numpy broadcasts. This form is unique, so two maps are equal if their arrays are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from kerasbn.arrays import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """y = scale * x + shift.

    Attributes:
        scale: The factors.
        shift: What is added. Brought to the shape of `scale`, as `scale` is to its.
    """

    scale: Array
    shift: Array

    def __post_init__(self) -> None:
        with np.errstate(all="ignore"):  # what is not finite is found by asking
            scale, shift = np.broadcast_arrays(np.asarray(self.scale, np.float64), np.asarray(self.shift, np.float64))
        for axis, size in enumerate(scale.shape):
            first = (*(slice(None),) * axis, slice(0, 1))
            if size > 1 and all(
                np.array_equal(array, np.broadcast_to(array[first], array.shape)) for array in (scale, shift)
            ):
                scale, shift = scale[first], shift[first]
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "shift", shift)

    def after(self, first: Affine) -> Affine:
        """The map that applies `first`, then this one."""
        return Affine(self.scale * first.scale, self.scale * first.shift + self.shift)

    def without_shift(self) -> Affine:
        """The scale alone."""
        return Affine(self.scale, np.zeros_like(self.shift))

    def each(self, function: Callable[[Array], Array]) -> Affine:
        """The map with a function applied to both arrays, such as one that reshapes them."""
        return Affine(function(self.scale), function(self.shift))

    def equals(self, other: Affine) -> bool:
        """Whether both are the same map."""
        rank = max(self.scale.ndim, other.scale.ndim)
        pairs = ((self.scale, other.scale), (self.shift, other.shift))
        return all(np.array_equal(_of_rank(one, rank), _of_rank(two, rank)) for one, two in pairs)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both arrays."""
        return tuple(self.scale.shape)

    @property
    def is_identity(self) -> bool:
        """Whether y = x."""
        return bool(np.all(self.scale == 1) and np.all(self.shift == 0))

    @property
    def is_uniform(self) -> bool:
        """Whether every number of the value is mapped alike."""
        return self.scale.size == 1

    @property
    def has_shift(self) -> bool:
        """Whether it does more than scale."""
        return bool(np.any(self.shift != 0))

    @property
    def has_negative_scale(self) -> bool:
        """Whether it turns the order of some numbers."""
        return bool(np.any(self.scale < 0))

    @property
    def greatest(self) -> float:
        """The greatest magnitude among its numbers; not a number if one of them is none."""
        return float(max(np.max(np.abs(self.scale)), np.max(np.abs(self.shift))))


def identity(rank: int) -> Affine:
    """The map y = x of a value with this number of axes besides the batch."""
    return Affine(np.ones([1] * rank), np.zeros([1] * rank))


def _of_rank(array: Array, rank: int) -> Array:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)
