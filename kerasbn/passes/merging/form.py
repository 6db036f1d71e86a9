"""Values as sums of what linear branches make of one other value, their base.

    value = shift + sum of terms                     one term for each way from the base to the value
    term  = scale * kernel(ahead(base))              or, without a kernel, scale * base, moved perhaps

`ahead` and `scale` act channel by channel. That is closed under what branches are made of: such
maps of channels, zeros put around, sums, and one kernel on each way. All numbers are in float64.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence

import numpy as np

from kerasbn.arrays import Array
from kerasbn.catalog.normalization import ChannelMap
from kerasbn.graph.model import CallSite
from kerasbn.passes.merging.window import Window, point
from kerasbn.reasons import Reason, Refusal


class NotLinear(Exception):  # noqa: N818  # nothing went wrong: there is nothing to merge
    """A value is something else than a sum of linear branches."""


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """One way from the base.

    Attributes:
        kernel: The call of the linear layer on the way, if there is one.
        window: Where in the base it looks.
        ahead: The map of the base's channels that the layer gets.
        scale: What the result is multiplied with, channel by channel.
    """

    kernel: CallSite | None
    window: Window
    ahead: ChannelMap
    scale: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """A value, in terms of its base.

    Attributes:
        terms: The ways.
        shift: What is added, by channel.
    """

    terms: tuple[Term, ...]
    shift: Array


def base_form(channels: int, rank: int) -> Form:
    """The base itself, with this number of channels and of axes of places."""
    one, none = np.ones(channels), np.zeros(channels)
    return Form((Term(None, point(rank), ChannelMap(one, none), one),), none)


def mapped(form: Form, channels: ChannelMap) -> Form:
    """With a map of the channels applied to it."""
    terms = (dataclasses.replace(term, scale=channels.scale * term.scale) for term in form.terms)
    return Form(tuple(terms), channels.scale * form.shift + channels.shift)


def summed(forms: Sequence[Form], weights: Sequence[float], lengths: Sequence[int | None]) -> Form:
    """The sum of some values of one shape, each with its weight.

    Args:
        forms: The values.
        weights: Their weights.
        lengths: How long they are along each axis of places, `None` where that is open.
    """
    first, *others = (term.window for form in forms for term in form.terms)
    for other in others:
        agree = zip(lengths, first.lost, other.lost, strict=True)
        if other.strides != first.strides or any(length is None and one != two for length, one, two in agree):
            raise Refusal(Reason.ALIGNMENT, "its branches move in other strides")
    nothing = np.zeros(())
    maps = (ChannelMap(np.asarray(weight), nothing) for weight in weights)
    weighted = [mapped(form, each) for form, each in zip(forms, maps, strict=True)]
    shift = functools.reduce(operator.add, (form.shift for form in weighted))
    return Form(tuple(term for form in weighted for term in form.terms), shift)


def padded(form: Form, margins: Sequence[tuple[int, int]]) -> Form:
    """With zeros put around it."""
    place = _one_place(form)
    if np.any(form.shift):
        raise Refusal(Reason.ZERO_PADDING, "adds a shift ahead of zeros")
    moved = place.moved(tuple(-ahead for ahead, _ in margins), tuple(-sum(margin) for margin in margins))
    return Form(tuple(dataclasses.replace(term, window=moved) for term in form.terms), form.shift)


def through(form: Form, kernel: CallSite, window: Window, channels: int) -> Form:
    """With a linear layer applied to it, that looks through a window and yields this number of channels."""
    place = _one_place(form)
    if np.any(form.shift) and (window.pads or place != point(len(place.sizes))):
        raise Refusal(Reason.ZERO_PADDING, "adds a shift ahead of zeros")
    scale = functools.reduce(operator.add, (term.scale for term in form.terms))
    term = Term(kernel, window.moved(place.first, place.lost), ChannelMap(scale, form.shift), np.ones(channels))
    return Form((term,), np.zeros(channels))


def _one_place(form: Form) -> Window:
    """Where a value without a kernel looks, if all of its terms look at one place."""
    windows = {term.window for term in form.terms}
    if len(windows) > 1 or any(term.kernel is not None for term in form.terms):
        raise NotLinear
    return windows.pop()


def is_plain(term: Term) -> bool:
    """Whether a term's layer gets the base as it is, with zeros around it perhaps."""
    return bool(np.all(term.ahead.scale == 1) and not np.any(term.ahead.shift))
