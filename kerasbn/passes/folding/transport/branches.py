"""Maps through what adds, compares or joins branches."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from kerasbn.arrays import Array
from kerasbn.catalog.linear import is_added_in_place
from kerasbn.graph.model import CallSite
from kerasbn.passes.folding.affine import Affine
from kerasbn.passes.folding.transport.transport import Maps, Transport, called
from kerasbn.reasons import Reason, Refusal


def _check_branches(site: CallSite, affine: Affine) -> None:
    """Refuse a map that varies along an axis on which a branch is spread, or may be, in a batch of one."""
    whole = site.outputs[0].shape
    for value in site.inputs:
        if (
            len(value.shape) != len(whole)
            or any(size != 1 and length == 1 for size, length in zip(affine.shape, value.shape[1:], strict=True))
            or not is_added_in_place(value.shape[1:], whole)
        ):
            raise Refusal(Reason.BRANCHES)


def _elementwise(
    backward: Callable[[CallSite, Affine], Maps],
    forward: Callable[[Maps], Affine],
    *,
    one_takes_shift: bool = False,
) -> Transport:
    def checked_backward(site: CallSite, affine: Affine) -> Maps:
        _check_branches(site, affine)
        return backward(site, affine)

    def checked_forward(site: CallSite, maps: Maps) -> Affine:
        for affine in maps:
            _check_branches(site, affine)
        return forward(maps)

    return Transport(checked_backward, checked_forward, one_takes_shift=one_takes_shift)


def _first_takes_shift(site: CallSite, affine: Affine) -> Maps:
    return (affine, *[affine.without_shift()] * (len(site.inputs) - 1))


def _all_take_all(site: CallSite, affine: Affine) -> Maps:
    return (affine,) * len(site.inputs)


def _all_take_all_unless_negative(site: CallSite, affine: Affine) -> Maps:
    if affine.has_negative_scale:
        raise Refusal(Reason.NEGATIVE_SCALE)
    return _all_take_all(site, affine)


def _with_common_scale(combine: Callable[[Sequence[Array]], Array]) -> Callable[[Maps], Affine]:
    """Branches that are scaled alike; their shifts are combined as their values are."""

    def forward(maps: Maps) -> Affine:
        scales = np.broadcast_arrays(*(affine.scale for affine in maps))
        if not all(np.array_equal(scales[0], scale) for scale in scales[1:]):
            raise Refusal(Reason.BRANCHES)
        return Affine(scales[0], combine([affine.shift for affine in maps]))

    return forward


def _sum(arrays: Sequence[Array]) -> Array:
    return functools.reduce(np.add, arrays)


def _if_all_equal(maps: Maps) -> Affine:
    if not all(maps[0].equals(affine) for affine in maps[1:]):
        raise Refusal(Reason.BRANCHES)
    if maps[0].has_negative_scale:
        raise Refusal(Reason.NEGATIVE_SCALE)
    return maps[0]


def _joined_axis(site: CallSite) -> int:
    """The axis along which a concatenation joins, the batch aside."""
    axis = int(called(site).axis) % len(site.outputs[0].shape)
    if axis == 0:
        raise Refusal(Reason.NONLINEAR)
    return axis - 1


def _concatenate_backward(site: CallSite, affine: Affine) -> Maps:
    axis = _joined_axis(site)
    if affine.shape[axis] == 1:
        return (affine,) * len(site.inputs)
    sizes = [value.shape[axis + 1] for value in site.inputs]
    ends = list(itertools.accumulate(sizes))  # a map varies along axes of known size alone
    starts = [0, *ends[:-1]]
    return tuple(
        affine.each(lambda array, start=start, end=end: array.take(range(start, end), axis))  # type: ignore[misc]
        for start, end in zip(starts, ends, strict=True)
    )


def _concatenate_forward(site: CallSite, maps: Maps) -> Affine:
    axis = _joined_axis(site)
    if maps[0].shape[axis] == 1 and all(maps[0].equals(affine) for affine in maps[1:]):
        return maps[0]
    sizes = [value.shape[axis + 1] for value in site.inputs]
    if None in sizes:
        raise Refusal(Reason.BRANCHES)
    common = list(np.broadcast_shapes(*((*affine.shape[:axis], 1, *affine.shape[axis + 1 :]) for affine in maps)))

    def joined(arrays: Sequence[Array]) -> Array:
        shapes = [(*common[:axis], size, *common[axis + 1 :]) for size in sizes]
        return np.concatenate([np.broadcast_to(*pair) for pair in zip(arrays, shapes, strict=True)], axis)

    return Affine(joined([affine.scale for affine in maps]), joined([affine.shift for affine in maps]))


SUM = _elementwise(_first_takes_shift, _with_common_scale(_sum), one_takes_shift=True)
DIFFERENCE = _elementwise(_first_takes_shift, _with_common_scale(lambda shifts: shifts[0] - shifts[1]))
MEAN_OF_BRANCHES = _elementwise(_all_take_all, _with_common_scale(lambda shifts: _sum(shifts) / len(shifts)))
EXTREME_OF_BRANCHES = _elementwise(_all_take_all_unless_negative, _if_all_equal)
JOINED = Transport(_concatenate_backward, _concatenate_forward)
