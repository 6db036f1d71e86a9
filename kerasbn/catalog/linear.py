"""The linear layers: y = W x + b, with the channels of y on one axis.

One entry a layer type says all that differs between them; everything else treats them alike. A
linear layer inside `TimeDistributed` is one as well: W applies to every step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from kerasbn.graph.model import Operation, core_of, type_of


@dataclasses.dataclass(frozen=True)
class Linear:
    """How one type of linear layer is laid out.

    Attributes:
        channel_axis: Gives the axis of the output that holds the channels, -1 or 1; `None` where
            no single axis does.
        no_bias: The argument that leaves the bias out, and its value.
    """

    channel_axis: Callable[[keras.layers.Layer], int | None]
    no_bias: tuple[str, Any] = ("use_bias", False)


def _by_data_format(layer: keras.layers.Layer) -> int:
    return 1 if layer.data_format == "channels_first" else -1


def _by_equation(layer: keras.layers.EinsumDense) -> int | None:
    """The last axis, if it is one that the kernel brings in: `"abc,cd->abd"`."""
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    return -1 if output and output[-1] in kernel and output[-1] not in inputs else None


_CONVOLUTION = Linear(_by_data_format)

LINEAR: Mapping[type, Linear] = {
    keras.layers.Dense: Linear(lambda layer: -1),
    keras.layers.EinsumDense: Linear(_by_equation, ("bias_axes", None)),
    keras.layers.Conv1D: _CONVOLUTION,
    keras.layers.Conv2D: _CONVOLUTION,
    keras.layers.Conv3D: _CONVOLUTION,
    keras.layers.Conv1DTranspose: _CONVOLUTION,
    keras.layers.Conv2DTranspose: _CONVOLUTION,
    keras.layers.Conv3DTranspose: _CONVOLUTION,
    keras.layers.DepthwiseConv1D: _CONVOLUTION,
    keras.layers.DepthwiseConv2D: _CONVOLUTION,
    keras.layers.SeparableConv1D: _CONVOLUTION,
    keras.layers.SeparableConv2D: _CONVOLUTION,
}


def linear_of(operation: Operation) -> Linear | None:
    """How a linear layer is laid out, `None` for anything else."""
    return LINEAR.get(type_of(core_of(operation)))


def channel_axis(layer: keras.layers.Layer) -> int | None:
    """The axis of a linear layer's output that holds the channels, `None` where no single axis does."""
    if core_of(layer) is layer:
        return LINEAR[type(layer)].channel_axis(layer)
    axis = channel_axis(layer.layer)
    return axis if axis is None or axis < 0 else axis + 1  # behind the axis of the steps


def channel_bias(layer: keras.layers.Layer) -> keras.Variable | None:
    """The bias of a linear layer, if it has one number a channel and nothing else acts on it."""
    core = core_of(layer)
    bias = core.bias
    free = core.bias_regularizer is None and core.bias_constraint is None
    return bias if bias is not None and len(bias.shape) == 1 and free else None
