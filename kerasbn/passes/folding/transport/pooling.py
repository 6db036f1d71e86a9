"""Maps through what pools or resamples within each channel."""

from __future__ import annotations

import keras
import numpy as np

from kerasbn.graph.model import CallSite
from kerasbn.passes.folding.affine import Affine
from kerasbn.passes.folding.transport.transport import called, channel_axis, unless_negative, with_one_input
from kerasbn.reasons import Reason, Refusal


def _within_channels(site: CallSite, affine: Affine) -> Affine:
    """Means of places, with weights that sum to 1, within each channel."""
    axis = channel_axis(site) % len(affine.shape)
    if any(size > 1 for at, size in enumerate(affine.shape) if at != axis):
        raise Refusal(Reason.CHANNEL_AXIS)
    return affine


def _maxima_within_channels(site: CallSite, affine: Affine) -> Affine:
    """Maxima of places; of one place each, as residual networks thin their shortcuts out, the sign is free."""
    one_each = all(length == 1 for length in keras.tree.flatten(called(site).pool_size))
    return (_within_channels if one_each else unless_negative(_within_channels))(site, affine)


def _pooled_axes(site: CallSite) -> list[int]:
    """The axes that a global pooling reduces, the batch aside."""
    rank = len(site.inputs[0].shape)
    if isinstance(site.operation, keras.layers.Layer):
        axes = list(range(2, rank) if channel_axis(site) == 0 else range(1, rank - 1))
    else:
        axes = [axis % rank for axis in called(site).axis or (0,)]
    if 0 in axes:
        raise Refusal(Reason.NONLINEAR)
    return [axis - 1 for axis in axes]


def _global_backward(site: CallSite, affine: Affine) -> Affine:
    axes = _pooled_axes(site)
    return affine if called(site).keepdims else affine.each(lambda array: np.expand_dims(array, axes))


def _global_forward(site: CallSite, affine: Affine) -> Affine:
    axes = _pooled_axes(site)
    if any(affine.shape[axis] > 1 for axis in axes):
        raise Refusal(Reason.CHANNEL_AXIS)
    return affine if called(site).keepdims else affine.each(lambda array: array.squeeze(tuple(axes)))


MEANS = with_one_input(_within_channels)
MAXIMA = with_one_input(_maxima_within_channels)
GLOBAL_MEAN = with_one_input(_global_backward, _global_forward)
GLOBAL_MAXIMUM = with_one_input(unless_negative(_global_backward), unless_negative(_global_forward))
