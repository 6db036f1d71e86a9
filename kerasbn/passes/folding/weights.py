"""What a layer becomes that absorbed affine maps: its weights, computed in float64 when they are asked for.

The algebra is in `kerasbn.passes.folding.absorb`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.catalog.linear import LINEAR, Kernel
from kerasbn.catalog.normalization import ChannelMap, is_known, weights_for
from kerasbn.graph.clone import spec_of
from kerasbn.graph.model import CallSite, LayerSpec, Values, core_of
from kerasbn.passes.folding.absorb import Absorbed, map_of
from kerasbn.passes.folding.affine import Affine, identity


def with_absorbed(site: CallSite, absorbed: Absorbed) -> LayerSpec:
    """The layer of a call site with what it has absorbed in its weights, which are computed when asked for."""
    if is_known(site.operation):
        return _normalization(site, absorbed)
    return _linear(cast("keras.layers.Layer", site.operation), absorbed)


def _linear(layer: keras.layers.Layer, absorbed: Absorbed) -> LayerSpec:
    core = cast("keras.layers.Layer", core_of(layer))
    entry = LINEAR[type(core)]
    kernels = entry.kernels(core)
    arguments: Mapping[str, Any] = {}
    place = _keras.sublayers(layer).index(core)  # an activation may hold weights of these names as well
    values: Values = {
        (place, kernel.name): lambda kernel=kernel: _kernel(  # type: ignore[misc]
            core,
            kernel,
            ahead=absorbed.ahead if kernel is kernels[0] else identity(0),
            behind=absorbed.behind if kernel is kernels[-1] else identity(0),
        )
        for kernel in kernels
    }
    if core.bias is not None or absorbed.ahead.has_shift or absorbed.behind.has_shift:
        arguments, shape = entry.full_bias(core)
        values[place, "bias"] = lambda: _bias(core, kernels, absorbed).reshape(shape).astype(core.variable_dtype)
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
    bias = np.zeros(sizes) if layer.bias is None else array_of(layer.bias)
    if bias.size == np.prod(sizes):
        bias = bias.reshape(sizes)
    if absorbed.ahead.has_shift:
        passed = absorbed.ahead.shift
        for kernel in kernels:
            passed = _summed(array_of(_variable(layer, kernel.name)).reshape(kernel.shape), passed, kernel)
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

    def weights() -> tuple[Array, Array]:
        affine = map_of(site, absorbed)
        shape = layer.moving_mean.shape
        wanted = ChannelMap(*(np.broadcast_to(each.reshape(-1), shape) for each in (affine.scale, affine.shift)))
        return weights_for(wanted, array_of(layer.moving_mean), array_of(layer.moving_variance), layer.epsilon)

    return dataclasses.replace(
        spec_of(cast("keras.layers.Layer", site.operation), center=True, scale=True),
        values={"gamma": lambda: weights()[0], "beta": lambda: weights()[1]},
    )


def _variable(layer: keras.layers.Layer, name: str) -> keras.Variable:
    return next(variable for variable in layer.variables if variable.name == name)
