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
from collections.abc import Callable, Mapping
from typing import Any, cast

import keras
import numpy as np

from kerasbn.catalog import activations
from kerasbn.catalog.linear import LINEAR, Kernel, linear_of
from kerasbn.graph.clone import spec_of
from kerasbn.graph.model import CallSite, LayerSpec, Operation, core_of, type_of
from kerasbn.layers import BatchNormalization
from kerasbn.passes.folding.affine import Affine, Array, identity, normalization
from kerasbn.passes.proposal import Reason

NORMALIZATIONS = (keras.layers.BatchNormalization, BatchNormalization)
"""The classes of batch normalization whose inference is known. A subclass may compute something else."""


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


def is_normalization(operation: Operation) -> bool:
    """Whether an operation is a batch normalization whose inference is known, of every step or by itself."""
    return type_of(core_of(operation)) in NORMALIZATIONS


def absorbs(operation: Operation) -> bool:
    """Whether an operation is of a type that absorbs affine maps."""
    return linear_of(operation) is not None or is_normalization(operation)


def is_homogeneous(layer: keras.layers.Layer) -> bool:
    """Whether a layer's built-in activation passes factors on, those that are not negative."""
    return activations.name_of_function(core_of(layer).activation) in activations.HOMOGENEOUS


def has_activation(layer: keras.layers.Layer) -> bool:
    """Whether a layer has a built-in activation that does something."""
    return activations.name_of_function(getattr(core_of(layer), "activation", None)) != activations.LINEAR


def why_not_behind(site: CallSite, affine: Affine) -> Reason | None:
    """Why a layer cannot absorb a map of its output at a call site, `None` if it can."""
    layer = cast("keras.layers.Layer", core_of(site.operation))
    if refusal := _why_not(layer):
        return refusal
    axes = _axes(site)
    if axes is None or not _fits(affine, axes[1]):
        return Reason.CHANNEL_AXIS
    if has_activation(layer):
        return why_not_through_homogeneous(affine) if is_homogeneous(layer) else Reason.NONLINEAR
    return None


def why_not_ahead(site: CallSite, affine: Affine) -> Reason | None:
    """Why a layer cannot absorb a map of its input at a call site, `None` if it can."""
    layer = cast("keras.layers.Layer", core_of(site.operation))
    if refusal := _why_not(layer):
        return refusal
    axes = _axes(site)
    if axes is None or not _fits(affine, axes[0]):
        return Reason.CHANNEL_AXIS
    linear = linear_of(site.operation)
    if affine.has_shift and linear is not None and linear.adds_zeros(layer, _shape_of_step(site)):
        return Reason.ZERO_PADDING
    return None


def why_not_through_homogeneous(affine: Affine) -> Reason | None:
    """Why a map does not commute with ReLU and its kin, `None` if it does."""
    if affine.has_shift:
        return Reason.NONLINEAR
    return Reason.NEGATIVE_SCALE if affine.has_negative_scale else None


def map_of(site: CallSite, absorbed: Absorbed) -> Affine:
    """The map of a call of batch normalization at inference, with what the layer has absorbed."""
    layer = cast("keras.layers.BatchNormalization", core_of(site.operation))
    rank = len(site.inputs[0].shape) - 1
    axis = _channel_axis(site)

    def by_channel(variable: keras.Variable | None) -> Array | None:
        return None if variable is None else _array(variable).reshape([-1 if at == axis else 1 for at in range(rank)])

    mean, variance = (cast("Array", by_channel(each)) for each in (layer.moving_mean, layer.moving_variance))
    own = normalization(mean, variance, layer.epsilon, by_channel(layer.gamma), by_channel(layer.beta))
    return absorbed.behind.after(own).after(absorbed.ahead)


def has_channel_axis(site: CallSite) -> bool:
    """Whether a batch normalization normalizes an axis other than the batch's."""
    return _channel_axis(site) >= 0


def with_absorbed(site: CallSite, absorbed: Absorbed) -> LayerSpec:
    """The layer of a call site with what it has absorbed in its weights, which are computed when asked for."""
    if is_normalization(site.operation):
        return _normalization(site, absorbed)
    return _linear(cast("keras.layers.Layer", site.operation), absorbed)


def _linear(layer: keras.layers.Layer, absorbed: Absorbed) -> LayerSpec:
    core = cast("keras.layers.Layer", core_of(layer))
    entry = LINEAR[type(core)]
    kernels = entry.kernels(core)
    arguments: Mapping[str, Any] = {}
    values: dict[str, Callable[[], Any]] = {
        kernel.name: lambda kernel=kernel: _kernel(  # type: ignore[misc]
            core,
            kernel,
            ahead=absorbed.ahead if kernel is kernels[0] else identity(0),
            behind=absorbed.behind if kernel is kernels[-1] else identity(0),
        )
        for kernel in kernels
    }
    if core.bias is not None or absorbed.ahead.has_shift or absorbed.behind.has_shift:
        arguments, shape = entry.full_bias(core)
        values["bias"] = lambda: _bias(core, kernels, absorbed).reshape(shape).astype(core.variable_dtype)
    return dataclasses.replace(spec_of(layer, **arguments), values=values)


def _kernel(layer: keras.layers.Layer, kernel: Kernel, ahead: Affine, behind: Affine) -> np.ndarray[Any, Any]:
    """The kernel times the scales, multiplied in float64 and cast back as it goes, with no copy in float64."""
    weights = keras.ops.convert_to_numpy(_variable(layer, kernel.name))
    scales = _spread(ahead.scale, kernel.inputs, kernel) * _spread(behind.scale, kernel.outputs, kernel)
    folded = np.empty(kernel.shape, weights.dtype)
    np.multiply(weights.reshape(kernel.shape), scales, out=folded, dtype=np.float64, casting="same_kind")
    return folded.reshape(weights.shape)


def _bias(layer: keras.layers.Layer, kernels: tuple[Kernel, ...], absorbed: Absorbed) -> Array:
    """The bias on each output channel: s (b + sum W t) + u, where t is the shift ahead, s and u are behind."""
    sizes = kernels[-1].sizes(kernels[-1].outputs)
    bias = np.zeros(sizes) if layer.bias is None else _array(layer.bias)
    if bias.size == np.prod(sizes):
        bias = bias.reshape(sizes)
    if absorbed.ahead.has_shift:
        passed = absorbed.ahead.shift
        for kernel in kernels:
            passed = _summed(_array(_variable(layer, kernel.name)).reshape(kernel.shape), passed, kernel)
        bias = bias + passed
    bias = absorbed.behind.scale * bias + absorbed.behind.shift
    return np.broadcast_to(bias, np.broadcast_shapes(bias.shape, sizes))


def _summed(weights: Array, inputs: Array, kernel: Kernel) -> Array:
    """What a kernel makes of an input that is the same everywhere: one number for each output channel."""
    outputs = "".join(kernel.outputs)
    products = weights * _spread(inputs, kernel.inputs, kernel)
    kept = [letter for letter in kernel.axes if letter in outputs]
    sums: Array = products.sum(axis=tuple(index for index, letter in enumerate(kernel.axes) if letter not in outputs))
    return sums.transpose([kept.index(letter) for letter in outputs]).reshape(kernel.sizes(kernel.outputs))


def _spread(array: Array, axes: tuple[str, ...], kernel: Kernel) -> Array:
    """Bring an array over the axes of an input or output to the axes of the kernel."""
    array = array.reshape((1,) * (len(axes) - array.ndim) + array.shape[max(array.ndim - len(axes), 0) :])
    sizes = dict(zip(kernel.axes, kernel.shape, strict=True))
    letters = "".join(axes)
    array = array.reshape(
        [
            sizes[letter] if size > 1 else 1
            for on_axis, size in zip(axes, array.shape, strict=True)
            for letter in on_axis
        ]
    )
    array = array.transpose([letters.index(letter) for letter in kernel.axes if letter in letters])
    return np.expand_dims(array, [index for index, letter in enumerate(kernel.axes) if letter not in letters])


def _normalization(site: CallSite, absorbed: Absorbed) -> LayerSpec:
    layer = cast("keras.layers.BatchNormalization", core_of(site.operation))

    def total() -> tuple[Array, Array, Array]:
        affine = map_of(site, absorbed)
        shape = layer.moving_mean.shape
        deviation = np.sqrt(_array(layer.moving_variance) + layer.epsilon)
        return (*(np.broadcast_to(each.reshape(-1), shape) for each in (affine.scale, affine.shift)), deviation)

    def gamma() -> Array:
        scale, _, deviation = total()
        return scale * deviation

    def beta() -> Array:
        scale, shift, _ = total()
        return shift + scale * _array(layer.moving_mean)

    return dataclasses.replace(
        spec_of(cast("keras.layers.Layer", site.operation), center=True, scale=True),
        values={"gamma": gamma, "beta": beta},
    )


def _why_not(layer: keras.layers.Layer) -> Reason | None:
    """Why a layer's weights are not to be changed, whatever the map."""
    if layer.dtype_policy.quantization_mode or getattr(layer, "lora_enabled", False):
        return Reason.QUANTIZED
    return None


def _axes(site: CallSite) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The axes of a layer's input and output, letters where a map may vary along them."""
    layer = cast("keras.layers.Layer", core_of(site.operation))
    if is_normalization(layer):
        rank = len(site.inputs[0].shape) - 1
        axes = tuple("c" if axis == _channel_axis(site) else "" for axis in range(rank))
        return axes, axes
    kernels = LINEAR[type(layer)].kernels(layer)
    return (kernels[0].inputs, kernels[-1].outputs) if kernels else None


def _shape_of_step(site: CallSite) -> tuple[int | None, ...]:
    """The shape of a linear layer's input, of a single step within `TimeDistributed`."""
    batch, *sizes = site.inputs[0].shape
    return (batch, *sizes[_step_axes(site.operation) :])


def _step_axes(operation: Any) -> int:
    """How many axes of steps `TimeDistributed` goes along."""
    return 0 if operation is core_of(operation) else 1 + _step_axes(operation.layer)


def _fits(affine: Affine, axes: tuple[str, ...]) -> bool:
    """Whether a map varies along no axis but those with letters. Missing axes are on the left."""
    shape = affine.shape
    padded = ("",) * (len(shape) - len(axes)) + axes[max(len(axes) - len(shape), 0) :]
    return all(size == 1 or letters for size, letters in zip(shape, padded, strict=True))


def _channel_axis(site: CallSite) -> int:
    """The axis that a batch normalization normalizes, among those besides the batch; -1 for the batch."""
    layer = cast("keras.layers.BatchNormalization", core_of(site.operation))
    steps = _step_axes(site.operation)
    inner = int(layer.axis) % (len(site.inputs[0].shape) - steps)
    return inner - 1 + steps if inner else -1


def _variable(layer: keras.layers.Layer, name: str) -> keras.Variable:
    return next(variable for variable in layer.variables if variable.name == name)


def _array(variable: keras.Variable) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
