"""Maps through what moves values, adds zeros or cuts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers

from kerasbn.graph.model import CallSite, Value
from kerasbn.passes.folding.affine import Affine
from kerasbn.passes.folding.transport.transport import (
    Step,
    called,
    channel_axis,
    rank_of,
    unless_shifted,
    with_one_input,
)
from kerasbn.reasons import Reason, Refusal


def _reshaped(affine: Affine, source: Value, target: Value) -> Affine:
    """The map of a value's numbers in another shape, in the same order."""
    if affine.is_uniform:
        return affine.each(lambda array: array.reshape((1,) * rank_of(target)))
    sizes = [value.shape[1:] for value in (source, target)]
    if any(None in shape for shape in sizes) or math.prod(sizes[0]) != math.prod(sizes[1]):  # type: ignore[arg-type]
        raise Refusal(Reason.CHANNEL_AXIS)
    return affine.each(lambda array: np.broadcast_to(array, sizes[0]).reshape(sizes[1]))  # type: ignore[arg-type]


def _reshape_backward(site: CallSite, affine: Affine) -> Affine:
    return _reshaped(affine, site.outputs[0], site.inputs[0])


def _reshape_forward(site: CallSite, affine: Affine) -> Affine:
    return _reshaped(affine, site.inputs[0], site.outputs[0])


def _flatten_backward(site: CallSite, affine: Affine) -> Affine:
    value = site.inputs[0]
    if channel_axis(site) == -1:
        return _reshaped(affine, site.outputs[0], value)
    return _reshaped(affine, site.outputs[0], _channels_last(value)).each(lambda array: np.moveaxis(array, -1, 0))


def _flatten_forward(site: CallSite, affine: Affine) -> Affine:
    value = site.inputs[0]
    if channel_axis(site) == -1:
        return _reshaped(affine, value, site.outputs[0])
    return _reshaped(affine.each(lambda array: np.moveaxis(array, 0, -1)), _channels_last(value), site.outputs[0])


def _channels_last(value: Value) -> Value:
    """Flatten reads values with the channels first as if they were last."""
    return Value(keras.KerasTensor((value.shape[0], *value.shape[2:], *value.shape[1:2])))


def _order(site: CallSite) -> list[int]:
    """Where each axis of a transposed value comes from, the batch aside."""
    if isinstance(site.operation, layers.Permute):
        return [axis - 1 for axis in site.operation.dims]
    axes = called(site).axes
    order = [axis % len(axes) for axis in axes or ()]
    if not order or order[0]:  # the batch moves
        raise Refusal(Reason.CHANNEL_AXIS)
    return [axis - 1 for axis in order[1:]]


def _transpose_backward(site: CallSite, affine: Affine) -> Affine:
    order = np.argsort(_order(site))
    return affine.each(lambda array: array.transpose(order))


def _transpose_forward(site: CallSite, affine: Affine) -> Affine:
    order = _order(site)
    return affine.each(lambda array: array.transpose(order))


_Margins: TypeAlias = Sequence[tuple[int, int]]
"""What is added or cut off on either end of each axis, the batch aside."""

_Change: TypeAlias = Callable[[Affine, _Margins], Affine]


def _margins(site: CallSite, given: Any) -> _Margins:
    """Margins by axis, from what a layer of Keras holds: `(1, 1)` in 1D, `((1, 1), (0, 2))` in 2D."""
    window = [(given[0], given[1])] if isinstance(given[0], int) else [tuple(each) for each in given]
    return [(0, 0), *window] if channel_axis(site) == 0 else [*window, (0, 0)]


def _grown(affine: Affine, margins: _Margins) -> Affine:
    """A map of a larger value: what is new stays as it is."""
    for axis, margin in enumerate(margins):
        if affine.shape[axis] > 1:
            widths = [margin if at == axis else (0, 0) for at in range(len(affine.shape))]
            affine = Affine(
                np.pad(affine.scale, widths, constant_values=1), np.pad(affine.shift, widths, constant_values=0)
            )
    return affine


def _cut(affine: Affine, margins: _Margins) -> Affine:
    """The map of what is left of a value."""
    ends = [
        slice(first, size - last) if size > 1 else slice(None)
        for (first, last), size in zip(margins, affine.shape, strict=True)
    ]
    return affine.each(lambda array: array[tuple(ends)])


def _zero_padding(change: _Change) -> Step:
    return unless_shifted(lambda site, affine: change(affine, _margins(site, called(site).padding)))


def _cropping(change: _Change) -> Step:
    return lambda site, affine: change(affine, _margins(site, called(site).cropping))


def _padding_operation(change: _Change) -> Step:
    checked = unless_shifted(lambda site, affine: change(affine, _widths(site)[1:]))

    def step(site: CallSite, affine: Affine) -> Affine:
        if called(site).mode != "constant" or any(_widths(site)[0]):
            raise Refusal(Reason.NONLINEAR)
        return checked(site, affine)

    return step


def _widths(site: CallSite) -> _Margins:
    widths = list(called(site).pad_width)
    return widths * (1 if len(widths) > 1 else len(site.inputs[0].shape))


RESHAPED = with_one_input(_reshape_backward, _reshape_forward)
FLATTENED = with_one_input(_flatten_backward, _flatten_forward)
TRANSPOSED = with_one_input(_transpose_backward, _transpose_forward)
ZERO_PADDED = with_one_input(_zero_padding(_cut), _zero_padding(_grown), passes_shift=False)
PADDED = with_one_input(_padding_operation(_cut), _padding_operation(_grown), passes_shift=False)
CROPPED = with_one_input(_cropping(_grown), _cropping(_cut))
