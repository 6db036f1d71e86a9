"""What it is to pass maps through one kind of operation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from kerasbn.graph.model import CallSite, Value
from kerasbn.passes.folding.affine import Affine, identity
from kerasbn.reasons import Reason, Refusal

Maps: TypeAlias = tuple[Affine, ...]
"""A map for each value among the inputs of a call site."""

Step: TypeAlias = Callable[[CallSite, Affine], Affine]
"""From the map on one side of an operation with one input to that on the other."""


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

    backward: Callable[[CallSite, Affine], Maps]
    forward: Callable[[CallSite, Maps], Affine]
    passes_shift: bool = True
    one_takes_shift: bool = False


def with_one_input(backward: Step, forward: Step | None = None, *, passes_shift: bool = True) -> Transport:
    """For operations with one input; further ones, such as a mask, are taken as they are."""
    forward_from_one = forward or backward

    def backward_to_all(site: CallSite, affine: Affine) -> Maps:
        return (backward(site, affine), *(identity(rank_of(value)) for value in site.inputs[1:]))

    def forward_from_first(site: CallSite, maps: Maps) -> Affine:
        if not all(each.is_identity for each in maps[1:]):
            raise Refusal(Reason.NONLINEAR)
        return forward_from_one(site, maps[0])

    return Transport(backward_to_all, forward_from_first, passes_shift)


def unless_negative(step: Step) -> Step:
    """For maxima: a negative scale would make minima of them."""
    return _unless(lambda affine: affine.has_negative_scale, Reason.NEGATIVE_SCALE, step)


def unless_shifted(step: Step) -> Step:
    """Where zeros are added, which a shift would have to move."""
    return _unless(lambda affine: affine.has_shift, Reason.ZERO_PADDING, step)


def _unless(stops: Callable[[Affine], bool], reason: Reason, step: Step) -> Step:
    def checked(site: CallSite, affine: Affine) -> Affine:
        if stops(affine):
            raise Refusal(reason)
        return step(site, affine)

    return checked


def called(site: CallSite) -> Any:
    """The layer or operation that is called, for its attributes: Keras ships no types."""
    return site.operation


def rank_of(value: Value) -> int:
    """The number of axes besides the batch."""
    return len(value.shape) - 1


def channel_axis(site: CallSite) -> int:
    """The axis of the channels, the batch aside: 0 or -1."""
    data_format = getattr(site.operation, "data_format", "channels_last") or keras.config.image_data_format()
    return 0 if data_format == "channels_first" else -1
