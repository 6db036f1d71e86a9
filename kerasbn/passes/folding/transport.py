"""How affine maps pass through the operations that they commute with, at inference.

    backward   A f(x, y, ...)  =  f(A1 x, A2 y, ...)      A is given, the Ai are wanted
    forward    f(A1 x, A2 y, ...)  =  A f(x, y, ...)      the other way round

One entry a type of layer, or name of an operation; what has none does not commute. Each direction
is a function of a call site that gives the maps wanted, or the reason why there are none.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers

from kerasbn import _keras
from kerasbn.catalog import activations
from kerasbn.catalog.roles import Role, activation_name, role_of
from kerasbn.graph.model import CallSite, Value
from kerasbn.passes.folding.absorb import why_not_through_homogeneous
from kerasbn.passes.folding.affine import Affine, Array, identity
from kerasbn.passes.proposal import Reason

Maps: TypeAlias = tuple[Affine, ...]
"""A map for each value among the inputs of a call site."""


@dataclasses.dataclass(frozen=True)
class Transport:
    """How maps pass through one kind of operation.

    Attributes:
        backward: From the map of the output to those of the inputs.
        forward: From the maps of the inputs to that of the output.
        passes_shift: Whether shifts pass too, at least in some cases.
        one_takes_shift: Whether backward the first input alone takes the shift, and any other one
            might as well.
    """

    backward: Callable[[CallSite, Affine], Maps | Reason]
    forward: Callable[[CallSite, Maps], Affine | Reason]
    passes_shift: bool = True
    one_takes_shift: bool = False


def transport_of(site: CallSite) -> Transport | None:
    """How maps pass through a call site, `None` if they do not."""
    operation = site.operation
    if isinstance(operation, keras.layers.Layer):
        if role_of(operation) is Role.IDENTITY:
            return _KEPT
        if type(operation) in (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU):
            return _HOMOGENEOUS if _is_homogeneous(operation) else None
        merges_constants = role_of(operation) is Role.MERGE and not _takes_values_alone(site)
        return None if merges_constants else _LAYERS.get(type(operation))
    if not isinstance(operation, keras.Operation) or not _takes_values_alone(site):
        return None
    if role_of(operation) is Role.IDENTITY:
        return _KEPT
    if role_of(operation) is Role.ACTIVATION:
        return _HOMOGENEOUS if _is_homogeneous(operation) else None
    return _OPERATIONS.get(_keras.operation_name(operation) or "")


def _takes_values_alone(site: CallSite) -> bool:
    """Whether all that a site is called with are values, not constants such as the 1 in `x + 1`."""
    given = [leaf for leaf in keras.tree.flatten((site.args, dict(site.kwargs))) if leaf is not None]
    return len(given) == len(site.inputs)


def _is_homogeneous(operation: keras.Operation) -> bool:
    return (
        activation_name(operation) in activations.HOMOGENEOUS
        and getattr(operation, "max_value", None) is None
        and not getattr(operation, "threshold", None)
    )


# Operations with one input


_Step: TypeAlias = Callable[[CallSite, Affine], "Affine | Reason"]


def _with_one_input(backward: _Step, forward: _Step | None = None, *, passes_shift: bool = True) -> Transport:
    """For operations with one input; further ones, such as a mask, are taken as they are."""
    ahead = forward or backward

    def backward_to_all(site: CallSite, affine: Affine) -> Maps | Reason:
        found = backward(site, affine)
        return found if isinstance(found, Reason) else (found, *map(_identity, site.inputs[1:]))

    def forward_from_first(site: CallSite, maps: Maps) -> Affine | Reason:
        return ahead(site, maps[0]) if all(each.is_identity for each in maps[1:]) else Reason.NONLINEAR

    return Transport(backward_to_all, forward_from_first, passes_shift)


def _keras_object(site: CallSite) -> Any:
    """The layer or operation that is called, for its attributes: Keras ships no types."""
    return site.operation


def _identity(value: Value) -> Affine:
    return identity(_rank(value))


def _rank(value: Value) -> int:
    """The number of axes besides the batch."""
    return len(value.shape) - 1


def _through_homogeneous(site: CallSite, affine: Affine) -> Affine | Reason:
    return why_not_through_homogeneous(affine) or affine


def _reshaped(affine: Affine, source: Value, target: Value) -> Affine | Reason:
    """The map of a value's numbers in another shape, in the same order."""
    if affine.is_uniform:
        return affine.each(lambda array: array.reshape((1,) * _rank(target)))
    sizes = [value.shape[1:] for value in (source, target)]
    if any(None in shape for shape in sizes) or math.prod(sizes[0]) != math.prod(sizes[1]):  # type: ignore[arg-type]
        return Reason.CHANNEL_AXIS
    return affine.each(lambda array: np.broadcast_to(array, sizes[0]).reshape(sizes[1]))  # type: ignore[arg-type]


def _reshape_backward(site: CallSite, affine: Affine) -> Affine | Reason:
    return _reshaped(affine, site.outputs[0], site.inputs[0])


def _reshape_forward(site: CallSite, affine: Affine) -> Affine | Reason:
    return _reshaped(affine, site.inputs[0], site.outputs[0])


def _flatten_backward(site: CallSite, affine: Affine) -> Affine | Reason:
    value = site.inputs[0]
    if _channel_axis(site) == -1:
        return _reshaped(affine, site.outputs[0], value)
    last = Value(keras.KerasTensor((value.shape[0], *value.shape[2:], *value.shape[1:2])))
    found = _reshaped(affine, site.outputs[0], last)
    return found if isinstance(found, Reason) else found.each(lambda array: np.moveaxis(array, -1, 0))


def _flatten_forward(site: CallSite, affine: Affine) -> Affine | Reason:
    value = site.inputs[0]
    if _channel_axis(site) == -1:
        return _reshaped(affine, value, site.outputs[0])
    last = Value(keras.KerasTensor((value.shape[0], *value.shape[2:], *value.shape[1:2])))
    return _reshaped(affine.each(lambda array: np.moveaxis(array, 0, -1)), last, site.outputs[0])


def _order(site: CallSite) -> list[int] | None:
    """Where each axis of a transposed value comes from, the batch aside; `None` if the batch moves."""
    if isinstance(site.operation, layers.Permute):
        return [axis - 1 for axis in site.operation.dims]
    axes = _keras_object(site).axes
    if axes is None:
        return None
    batch, *others = (axis % len(axes) for axis in axes)
    return None if batch else [axis - 1 for axis in others]


def _transpose_backward(site: CallSite, affine: Affine) -> Affine | Reason:
    order = _order(site)
    return Reason.CHANNEL_AXIS if order is None else affine.each(lambda array: array.transpose(np.argsort(order)))


def _transpose_forward(site: CallSite, affine: Affine) -> Affine | Reason:
    order = _order(site)
    return Reason.CHANNEL_AXIS if order is None else affine.each(lambda array: array.transpose(order))


_Margins: TypeAlias = Sequence[tuple[int, int]]
"""What is added or cut off on either end of each axis, the batch aside."""


def _margins(site: CallSite, given: Any) -> _Margins:
    """Margins by axis, from what a layer of Keras holds: `(1, 1)` in 1D, `((1, 1), (0, 2))` in 2D."""
    window = [(given[0], given[1])] if isinstance(given[0], int) else [tuple(each) for each in given]
    return [(0, 0), *window] if _channel_axis(site) == 0 else [*window, (0, 0)]


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
        slice(before, size - after) if size > 1 else slice(None)
        for (before, after), size in zip(margins, affine.shape, strict=True)
    ]
    return affine.each(lambda array: array[tuple(ends)])


def _zero_padding(change: Callable[[Affine, _Margins], Affine]) -> _Step:
    def step(site: CallSite, affine: Affine) -> Affine | Reason:
        if affine.has_shift:
            return Reason.ZERO_PADDING
        return change(affine, _margins(site, _keras_object(site).padding))

    return step


def _cropping(change: Callable[[Affine, _Margins], Affine]) -> _Step:
    return lambda site, affine: change(affine, _margins(site, _keras_object(site).cropping))


def _padding_operation(change: Callable[[Affine, _Margins], Affine]) -> _Step:
    def step(site: CallSite, affine: Affine) -> Affine | Reason:
        operation = _keras_object(site)
        widths = list(operation.pad_width) * (1 if len(operation.pad_width) > 1 else len(site.inputs[0].shape))
        if operation.mode != "constant" or any(widths[0]):
            return Reason.NONLINEAR
        return Reason.ZERO_PADDING if affine.has_shift else change(affine, widths[1:])

    return step


def _channel_axis(site: CallSite) -> int:
    """The axis of the channels, the batch aside: 0 or -1."""
    data_format = getattr(site.operation, "data_format", "channels_last") or keras.config.image_data_format()
    return 0 if data_format == "channels_first" else -1


def _varies_along_channels_alone(site: CallSite, affine: Affine) -> bool:
    axis = _channel_axis(site) % len(affine.shape)
    return all(size == 1 for at, size in enumerate(affine.shape) if at != axis)


def _within_channels(site: CallSite, affine: Affine) -> Affine | Reason:
    """Means of places, with weights that sum to 1, within each channel."""
    return affine if _varies_along_channels_alone(site, affine) else Reason.CHANNEL_AXIS


def _maxima_within_channels(site: CallSite, affine: Affine) -> Affine | Reason:
    """Maxima of places; of one place each, as residual networks thin their shortcuts out, the sign is free."""
    one_each = all(length == 1 for length in keras.tree.flatten(_keras_object(site).pool_size))
    return Reason.NEGATIVE_SCALE if affine.has_negative_scale and not one_each else _within_channels(site, affine)


def _pooled_axes(site: CallSite) -> list[int]:
    """The axes that a global pooling reduces, of the whole value."""
    rank = len(site.inputs[0].shape)
    if isinstance(site.operation, keras.layers.Layer):
        return list(range(2, rank) if _channel_axis(site) == 0 else range(1, rank - 1))
    axes = _keras_object(site).axis
    return list(range(rank)) if axes is None else [axis % rank for axis in axes]


def _global_backward(site: CallSite, affine: Affine) -> Affine | Reason:
    axes = _pooled_axes(site)
    if 0 in axes:
        return Reason.NONLINEAR
    if _keras_object(site).keepdims:
        return affine
    return affine.each(lambda array: np.expand_dims(array, [axis - 1 for axis in axes]))


def _global_forward(site: CallSite, affine: Affine) -> Affine | Reason:
    axes = _pooled_axes(site)
    if 0 in axes:
        return Reason.NONLINEAR
    if any(affine.shape[axis - 1] > 1 for axis in axes):
        return Reason.CHANNEL_AXIS
    if _keras_object(site).keepdims:
        return affine
    return affine.each(lambda array: array.squeeze(tuple(axis - 1 for axis in axes)))


def _unless_negative(step: _Step) -> _Step:
    """For maxima: a negative scale would make minima of them."""
    return lambda site, affine: Reason.NEGATIVE_SCALE if affine.has_negative_scale else step(site, affine)


# Operations that merge branches


def _suits_branches(site: CallSite, affine: Affine) -> bool:
    """Whether no branch is spread along an axis on which the map varies."""
    return all(
        len(value.shape) == len(site.outputs[0].shape)
        and all(size == 1 or length != 1 for size, length in zip(affine.shape, value.shape[1:], strict=True))
        for value in site.inputs
    )


def _elementwise(
    backward: Callable[[CallSite, Affine], Maps | Reason],
    forward: Callable[[Maps], Affine | Reason],
    *,
    one_takes_shift: bool = False,
) -> Transport:
    def checked_backward(site: CallSite, affine: Affine) -> Maps | Reason:
        return backward(site, affine) if _suits_branches(site, affine) else Reason.BRANCHES

    def checked_forward(site: CallSite, maps: Maps) -> Affine | Reason:
        return forward(maps) if all(_suits_branches(site, affine) for affine in maps) else Reason.BRANCHES

    return Transport(checked_backward, checked_forward, one_takes_shift=one_takes_shift)


def _first_takes_shift(site: CallSite, affine: Affine) -> Maps:
    return (affine, *[affine.without_shift()] * (len(site.inputs) - 1))


def _all_take_all(site: CallSite, affine: Affine) -> Maps:
    return (affine,) * len(site.inputs)


def _all_take_all_unless_negative(site: CallSite, affine: Affine) -> Maps | Reason:
    return Reason.NEGATIVE_SCALE if affine.has_negative_scale else _all_take_all(site, affine)


def _with_common_scale(combine: Callable[[Sequence[Array]], Array]) -> Callable[[Maps], Affine | Reason]:
    """Branches that are scaled alike; their shifts are combined as their values are."""

    def forward(maps: Maps) -> Affine | Reason:
        scales = np.broadcast_arrays(*(affine.scale for affine in maps))
        if not all(np.array_equal(scales[0], scale) for scale in scales[1:]):
            return Reason.BRANCHES
        return Affine(scales[0], combine([affine.shift for affine in maps]))

    return forward


def _sum(arrays: Sequence[Array]) -> Array:
    return functools.reduce(np.add, arrays)


def _if_all_equal(maps: Maps) -> Affine | Reason:
    if not all(maps[0].equals(affine) for affine in maps[1:]):
        return Reason.BRANCHES
    return Reason.NEGATIVE_SCALE if maps[0].has_negative_scale else maps[0]


def _joined_axis(site: CallSite) -> int:
    """The axis along which a concatenation joins, of the whole value."""
    return int(_keras_object(site).axis) % len(site.outputs[0].shape)


def _concatenate_backward(site: CallSite, affine: Affine) -> Maps | Reason:
    axis = _joined_axis(site)
    if axis == 0:
        return Reason.NONLINEAR
    if affine.shape[axis - 1] == 1:
        return (affine,) * len(site.inputs)
    sizes = [value.shape[axis] for value in site.inputs]
    ends = list(itertools.accumulate(sizes))  # a map varies along axes of known size alone
    starts = [0, *ends[:-1]]
    return tuple(
        affine.each(lambda array, start=start, end=end: array.take(range(start, end), axis - 1))  # type: ignore[misc]
        for start, end in zip(starts, ends, strict=True)
    )


def _concatenate_forward(site: CallSite, maps: Maps) -> Affine | Reason:
    axis = _joined_axis(site)
    if axis == 0:
        return Reason.NONLINEAR
    if maps[0].shape[axis - 1] == 1 and all(maps[0].equals(affine) for affine in maps[1:]):
        return maps[0]
    sizes = [value.shape[axis] for value in site.inputs]
    if None in sizes:
        return Reason.BRANCHES
    common = list(np.broadcast_shapes(*((*affine.shape[: axis - 1], 1, *affine.shape[axis:]) for affine in maps)))

    def joined(arrays: Sequence[Array]) -> Array:
        shapes = [(*common[: axis - 1], size, *common[axis:]) for size in sizes]
        return np.concatenate([np.broadcast_to(*pair) for pair in zip(arrays, shapes, strict=True)], axis - 1)

    return Affine(joined([affine.scale for affine in maps]), joined([affine.shift for affine in maps]))


_KEPT = _with_one_input(lambda site, affine: affine)
_HOMOGENEOUS = _with_one_input(_through_homogeneous, passes_shift=False)
_RESHAPED = _with_one_input(_reshape_backward, _reshape_forward)
_TRANSPOSED = _with_one_input(_transpose_backward, _transpose_forward)
_ZERO_PADDED = _with_one_input(_zero_padding(_cut), _zero_padding(_grown), passes_shift=False)
_CROPPED = _with_one_input(_cropping(_grown), _cropping(_cut))
_MEANS = _with_one_input(_within_channels)
_MAXIMA = _with_one_input(_maxima_within_channels)
_GLOBAL_MEAN = _with_one_input(_global_backward, _global_forward)
_GLOBAL_MAXIMUM = _with_one_input(_unless_negative(_global_backward), _unless_negative(_global_forward))
_SUM = _elementwise(_first_takes_shift, _with_common_scale(_sum), one_takes_shift=True)
_DIFFERENCE = _elementwise(_first_takes_shift, _with_common_scale(lambda shifts: shifts[0] - shifts[1]))
_MEAN_OF_BRANCHES = _elementwise(_all_take_all, _with_common_scale(lambda shifts: _sum(shifts) / len(shifts)))
_MAXIMUM_OF_BRANCHES = _elementwise(_all_take_all_unless_negative, _if_all_equal)
_JOINED = Transport(_concatenate_backward, _concatenate_forward)

_LAYERS: Mapping[type, Transport] = {
    kind: transport
    for transport, kinds in (
        (
            _KEPT,
            (
                *(layers.Dropout, layers.GaussianDropout, layers.AlphaDropout, layers.GaussianNoise),
                *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
            ),
        ),
        (_RESHAPED, (layers.Reshape,)),
        (_with_one_input(_flatten_backward, _flatten_forward), (layers.Flatten,)),
        (_TRANSPOSED, (layers.Permute,)),
        (_ZERO_PADDED, (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)),
        (_CROPPED, (layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)),
        (
            _MEANS,
            (
                *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
                *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
            ),
        ),
        (_MAXIMA, (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)),
        (
            _GLOBAL_MEAN,
            (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
        ),
        (_GLOBAL_MAXIMUM, (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)),
        (_SUM, (layers.Add,)),
        (_DIFFERENCE, (layers.Subtract,)),
        (_MEAN_OF_BRANCHES, (layers.Average,)),
        (_MAXIMUM_OF_BRANCHES, (layers.Maximum, layers.Minimum)),
        (_JOINED, (layers.Concatenate,)),
    )
    for kind in kinds
}

_OPERATIONS: Mapping[str, Transport] = {
    "Reshape": _RESHAPED,
    "Squeeze": _RESHAPED,
    "ExpandDims": _RESHAPED,
    "Transpose": _TRANSPOSED,
    "Pad": _with_one_input(_padding_operation(_cut), _padding_operation(_grown), passes_shift=False),
    "AveragePool": _MEANS,
    "MaxPool": _MAXIMA,
    "Mean": _GLOBAL_MEAN,
    "Add": _SUM,
    "Subtract": _DIFFERENCE,
    "Maximum": _MAXIMUM_OF_BRANCHES,
    "Minimum": _MAXIMUM_OF_BRANCHES,
    "Concatenate": _JOINED,
}
"""Operations by the name of their class."""
