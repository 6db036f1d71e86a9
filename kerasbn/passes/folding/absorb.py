"""The layers that absorb an affine map of their output, or of their input, into their weights.

For a linear layer y = W x + b, with the sums over whatever W is multiplied with,

    behind    s (W x + b) + t   =  (s W) x + (s b + t)           s and t by output channel
    ahead     W (s x + t) + b   =  (W s) x + (b + sum W t)       s and t by input channel

The first is exact under a built-in activation f too if f(s z) = s f(z), which ReLU and its kin give
for s >= 0, and t = 0. The second is exact where every output sums over the same inputs, so not
where zeros are put beside them, unless t = 0. A product of several kernels, as in separable
convolutions, takes the first map in the last kernel, the second one in the first.

A batch normalization that stays absorbs both: it is linear, channel by channel.

    s (gamma (x - mean) / std + beta) + t   =  (s gamma) (x - mean) / std + (s beta + t)
    gamma ((s x + t) - mean) / std + beta   =  (s gamma) (x - mean) / std + (beta + gamma (t + (s - 1) mean) / std)
"""

from __future__ import annotations

import dataclasses
from typing import cast

import keras

from kerasbn.catalog import activations, normalization
from kerasbn.catalog.linear import LINEAR, adds_bias_in_place, has_activation, linear_of, shape_of_step
from kerasbn.catalog.normalization import is_known
from kerasbn.graph.model import CallSite, Operation, core_of, step_axes
from kerasbn.passes.folding.affine import Affine, identity
from kerasbn.reasons import Reason, Refusal


@dataclasses.dataclass(frozen=True)
class Absorbed:
    """What a layer has taken in: the map ahead of it and the one behind it."""

    ahead: Affine = dataclasses.field(default_factory=lambda: identity(0))
    behind: Affine = dataclasses.field(default_factory=lambda: identity(0))

    def with_ahead(self, affine: Affine) -> Absorbed:
        """With a further map of the input, applied before the one there is."""
        return dataclasses.replace(self, ahead=self.ahead.after(affine))

    def with_behind(self, affine: Affine) -> Absorbed:
        """With a further map of the output, applied after the one there is."""
        return dataclasses.replace(self, behind=affine.after(self.behind))


def absorbs(operation: Operation) -> bool:
    """Whether an operation is of a type that absorbs affine maps."""
    return linear_of(operation) is not None or is_known(operation)


def check_behind(site: CallSite, affine: Affine) -> None:
    """Refuse a map of a call site's output that its layer cannot absorb."""
    layer = cast("keras.layers.Layer", core_of(site.operation))
    _check_weights(layer)
    axes = _axes(site)
    if axes is None or not _fits(affine, axes[1]):
        raise Refusal(Reason.CHANNEL_AXIS)
    _check_bias(site, affine)
    if has_activation(layer):
        if activations.name_of_function(layer.activation) not in activations.HOMOGENEOUS:
            raise Refusal(Reason.NONLINEAR)
        check_homogeneous(affine)


def check_ahead(site: CallSite, affine: Affine) -> None:
    """Refuse a map of a call site's input that its layer cannot absorb."""
    layer = cast("keras.layers.Layer", core_of(site.operation))
    _check_weights(layer)
    axes = _axes(site)
    if axes is None or not _fits(affine, axes[0]):
        raise Refusal(Reason.CHANNEL_AXIS)
    linear = linear_of(site.operation)
    if affine.has_shift and linear is not None and linear.adds_zeros(layer, shape_of_step(site, site.inputs[0])):
        raise Refusal(Reason.ZERO_PADDING)
    _check_bias(site, affine)


def check_homogeneous(affine: Affine) -> None:
    """Refuse a map that does not commute with ReLU and its kin."""
    if affine.has_shift:
        raise Refusal(Reason.NONLINEAR)
    if affine.has_negative_scale:
        raise Refusal(Reason.NEGATIVE_SCALE)


def map_of(site: CallSite, absorbed: Absorbed) -> Affine:
    """The map of a call of batch normalization at inference, with what the layer has absorbed."""
    rank, axis = len(site.inputs[0].shape) - 1, _channel_axis(site)
    own = normalization.map_of(cast("keras.layers.BatchNormalization", core_of(site.operation)))
    shape = [-1 if at == axis else 1 for at in range(rank)]
    return absorbed.behind.after(Affine(own.scale.reshape(shape), own.shift.reshape(shape))).after(absorbed.ahead)


def has_channel_axis(site: CallSite) -> bool:
    """Whether a batch normalization normalizes an axis other than the batch's."""
    return _channel_axis(site) >= 0


def _check_weights(layer: keras.layers.Layer) -> None:
    """Refuse to change the weights of a layer that holds them in another form, whatever the map."""
    if layer.dtype_policy.quantization_mode or getattr(layer, "lora_enabled", False):
        raise Refusal(Reason.QUANTIZED)


def _check_bias(site: CallSite, affine: Affine) -> None:
    """Refuse a map that would give a linear layer a bias which Keras adds on another axis."""
    if linear_of(site.operation) is None:
        return
    if not adds_bias_in_place(site, full=affine.has_shift or core_of(site.operation).bias is not None):
        raise Refusal(Reason.BIAS_AXIS)


def _axes(site: CallSite) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The axes of a layer's input and output, letters where a map may vary along them."""
    layer = cast("keras.layers.Layer", core_of(site.operation))
    if is_known(layer):
        rank = len(site.inputs[0].shape) - 1
        axes = tuple("c" if axis == _channel_axis(site) else "" for axis in range(rank))
        return axes, axes
    kernels = LINEAR[type(layer)].kernels(layer)
    return (kernels[0].inputs, kernels[-1].outputs) if kernels else None


def _fits(affine: Affine, axes: tuple[str, ...]) -> bool:
    """Whether a map varies along no axis but those with letters. Missing axes are on the left."""
    shape = affine.shape
    padded = ("",) * (len(shape) - len(axes)) + axes[max(len(axes) - len(shape), 0) :]
    return all(size == 1 or letters for size, letters in zip(shape, padded, strict=True))


def _channel_axis(site: CallSite) -> int:
    """The axis that a batch normalization normalizes, among those besides the batch; -1 for the batch."""
    layer = cast("keras.layers.BatchNormalization", core_of(site.operation))
    steps = step_axes(site.operation)
    inner = int(layer.axis) % (len(site.inputs[0].shape) - steps)
    return inner - 1 + steps if inner else -1
