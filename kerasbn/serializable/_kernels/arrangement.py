"""Inputs of any rank and masks with them, in the form that sums are fast over.

    (N, H, W, C), axis -1          (N H W, C)             sums over axis 0
    (N, C, H, W), axis 1           (N, C, H, W)           sums over axes 0, 2, 3
    (N, T, C), ghost batches of v  (N / v, v T, C, 1)     sums over axes 1, 3

Where N is no multiple of v, the last ghost batch is filled up with examples that are masked. The
forms are those that TensorFlow's XLA has the fastest code for on a CPU: an axis of size 1, or channels that are
not last with the axes behind them merged, cost up to half as much again. That of JAX is newer, and faster where
the axes in front of the channels are not merged.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras import ops


@dataclasses.dataclass(frozen=True)
class Arranged:
    """Inputs ready for a kernel.

    Attributes:
        x: The inputs.
        mask: Booleans, of the same shape with one channel or all: what counts. `None`: everything.
        axes: The axes that the sums of a channel run over.
        shape: The shape of the inputs as they came; a size that only the call knows is a tensor.
            `None`: that of `x`.
        filled: Whether examples may have been added at the end.
    """

    x: Any
    mask: Any
    axes: tuple[int, ...]
    shape: tuple[Any, ...] | None
    filled: bool

    def restored(self, outputs: Any) -> Any:
        """Outputs of the shape of `x`, in the shape of the inputs."""
        if self.shape is None:
            return outputs
        if not self.filled:
            return ops.reshape(outputs, self.shape)
        return ops.reshape(outputs, (-1, *self.shape[1:]))[: self.shape[0]]

    def by_channel(self, vector: Any) -> Any:
        """A number for each channel, in the form of the statistics."""
        channels = self._channel_axis
        return ops.reshape(vector, [-1 if axis == channels else 1 for axis in range(len(self.x.shape))])

    def by_group(self, statistics: Any) -> Any:
        """Numbers in the form of the statistics, in the shape `(groups, channels)`."""
        return ops.reshape(statistics, (-1, statistics.shape[self._channel_axis]))

    def over_groups(self, statistics: Any) -> Any:
        """Numbers in the form of the statistics, summed over the groups, in the shape `(channels,)`."""
        return ops.reshape(statistics, (-1,)) if 0 in self.axes else ops.sum(self.by_group(statistics), axis=0)

    @property
    def _channel_axis(self) -> int:
        """The last axis that no sum runs over: the first one is that of the groups, if there are any."""
        return next(axis for axis in reversed(range(len(self.x.shape))) if axis not in self.axes)


def arrange(
    inputs: Any, axis: int, *, mask: Any = None, group_size: int | None = None, merged: bool = True
) -> Arranged:
    """Arrange inputs for a kernel.

    Args:
        inputs: Of any rank.
        axis: The axis of the channels, from 0.
        mask: Which positions count: over the leading axes of the inputs, or over all axes but the
            channels'; sizes of 1 stand for all.
        group_size: How many examples make up a group. `None`: all of them.
        merged: Whether axes are merged where nothing but the form asks for it.
    """
    shape = tuple(ops.shape(inputs))
    mask = None if mask is None else spread(mask, inputs, axis)
    if group_size is not None:
        return _in_groups(inputs, axis, mask, group_size)
    if axis != len(shape) - 1 or len(shape) == 2 or not merged:
        others = tuple(each for each in range(len(shape)) if each != axis)
        return Arranged(inputs, mask, others, shape=None, filled=False)
    rows = math.prod(shape[:-1])
    return Arranged(
        x=ops.reshape(inputs, (rows, shape[-1])),
        mask=None if mask is None else ops.reshape(mask, (rows, mask.shape[-1])),
        axes=(0,),
        shape=shape,
        filled=False,
    )


def _in_groups(x: Any, axis: int, mask: Any, size: int) -> Arranged:
    shape = tuple(ops.shape(x))
    examples = shape[0]
    if isinstance(examples, int):
        size = max(min(size, examples), 1)
    filled = not isinstance(examples, int) or examples % size != 0
    if filled:
        missing = -examples % size
        counts = ops.ones((*shape[:axis], 1, *shape[axis + 1 :]), "bool") if mask is None else mask
        x, mask = _filled(x, missing), _filled(counts, missing)
    groups, before, after = -(-examples // size), math.prod(shape[1:axis], start=size), math.prod(shape[axis + 1 :])
    return Arranged(
        x=ops.reshape(x, (groups, before, shape[axis], after)),
        mask=None if mask is None else ops.reshape(mask, (groups, before, mask.shape[axis], after)),
        axes=(1, 3),
        shape=shape,
        filled=filled,
    )


def _filled(x: Any, missing: Any) -> Any:
    """`missing` more examples at the end, of zeros."""
    return ops.concatenate([x, ops.zeros((missing, *ops.shape(x)[1:]), x.dtype)])


def spread(mask: Any, inputs: Any, axis: int) -> Any:
    """A mask, see `arrange`, in the shape of the inputs, with one channel or all."""
    mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    at = _axes_added(tuple(mask.shape), tuple(inputs.shape), axis)
    mask = ops.expand_dims(mask, at) if at else mask
    shape = list(ops.shape(inputs))
    shape[axis] = mask.shape[axis]
    return ops.broadcast_to(mask, shape)


def _axes_added(mask: Sequence[int | None], inputs: Sequence[int | None], axis: int) -> tuple[int, ...]:
    """The axes that a mask leaves out: the trailing ones, as Keras's masks do, or else the channels' too."""
    rank = len(inputs)
    trailing = tuple(range(len(mask), rank))
    if _fits((*mask, *(1 for _ in trailing)), inputs, axis):
        return trailing
    channels = (axis, *range(len(mask) + 1, rank))
    if len(mask) > axis and _fits((*mask[:axis], 1, *mask[axis:], *(1 for _ in channels[1:])), inputs, axis):
        return channels
    raise ValueError(
        "The mask must cover the leading axes of the inputs, or all of its axes but the channels' (or have sizes of 1 "
        f"there). Received: mask.shape={tuple(mask)}, inputs.shape={tuple(inputs)}, axis={axis}"
    )


def _fits(mask: Sequence[int | None], inputs: Sequence[int | None], axis: int) -> bool:
    """Whether a mask can be spread over inputs. What it has for channels must be known: one or all."""
    return (
        len(mask) == len(inputs)
        and mask[axis] in (1, inputs[axis])
        and mask[axis] is not None
        and all(ours in (1, None, theirs) or theirs is None for ours, theirs in zip(mask, inputs, strict=True))
    )
