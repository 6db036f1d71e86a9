"""The linear layers: y = W x + b, with the channels of y on one axis.

One entry a layer type says all that differs between them; everything else treats them alike. A
linear layer inside `TimeDistributed` is one as well: W applies to every step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kerasbn.catalog import activations, families
from kerasbn.graph.model import CallSite, Operation, Value, core_of, step_axes, type_of

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One weight of a linear layer, with a letter for each of its axes.

    Letters tie it to the input and the output of the product: what is on both sides or summed over
    goes by the letter. An axis of the value may be several axes of the kernel, the first one
    varying slowest: the input channels of a grouped convolution are "gi", group by group.

    Attributes:
        name: The name of the variable, `"depthwise_kernel"`.
        shape: The sizes of the axes. The variable is reshaped to it.
        axes: The letter of each axis.
        inputs: The letters on each axis of the input, the last axis last: `("", "gi")`. None where
            the kernel is the same all along it.
        outputs: Likewise for the output.
    """

    name: str
    shape: tuple[int, ...]
    axes: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def sizes(self, axes: tuple[str, ...]) -> tuple[int, ...]:
        """The size of each axis of an input or output, 1 where the kernel is the same all along it."""
        by_letter = dict(zip(self.axes, self.shape, strict=True))
        return tuple(math.prod(by_letter[letter] for letter in letters) for letters in axes)


@dataclasses.dataclass(frozen=True)
class Linear:
    """How one type of linear layer is laid out.

    Attributes:
        channel_axis: Gives the axis of the output that holds the channels, -1 or 1; `None` where
            no single axis does.
        kernels: Gives the weights that the input is multiplied with, one after another; none where
            the layer is of an unusual form.
        adds_zeros: Tells whether zeros are put beside the input, of a given shape, or inside it.
        no_bias: The argument that leaves the bias out, and its value.
        full_bias: Gives the arguments for a bias on each channel, and the shape of that bias.
    """

    channel_axis: Callable[[keras.layers.Layer], int | None]
    kernels: Callable[[keras.layers.Layer], tuple[Kernel, ...]]
    adds_zeros: Callable[[keras.layers.Layer, Shape], bool] = lambda layer, shape: False
    no_bias: tuple[str, Any] = ("use_bias", False)
    full_bias: Callable[[keras.layers.Layer], tuple[Mapping[str, Any], tuple[int, ...]]] = lambda layer: (
        {"use_bias": True},
        (-1,),
    )


def _by_data_format(layer: keras.layers.Layer) -> int:
    return 1 if layer.data_format == "channels_first" else -1


def _channels(layer: keras.layers.Layer, letters: str) -> tuple[str, ...]:
    """The axes of a value with the channels on the axis that `data_format` says."""
    return (letters, *[""] * layer.rank) if layer.data_format == "channels_first" else (letters,)


def _dense(layer: keras.layers.Dense) -> tuple[Kernel, ...]:
    return (Kernel("kernel", _shape(layer, "kernel"), "io", ("i",), ("o",)),)


def _convolution(layer: keras.layers.Layer) -> tuple[Kernel, ...]:
    *window, inputs, outputs = _shape(layer, "kernel")
    shape = (math.prod(window), inputs, layer.groups, outputs // layer.groups)
    return (Kernel("kernel", shape, "kigo", _channels(layer, "gi"), _channels(layer, "go")),)


def _transposed(layer: keras.layers.Layer) -> tuple[Kernel, ...]:
    *window, outputs, inputs = _shape(layer, "kernel")
    return (
        Kernel("kernel", (math.prod(window), outputs, inputs), "koi", _channels(layer, "i"), _channels(layer, "o")),
    )


def _depthwise(layer: keras.layers.Layer, name: str = "kernel") -> tuple[Kernel, ...]:
    *window, inputs, multiplier = _shape(layer, name)
    shape = (math.prod(window), inputs, multiplier)
    return (Kernel(name, shape, "kim", _channels(layer, "i"), _channels(layer, "im")),)


def _separable(layer: keras.layers.Layer) -> tuple[Kernel, ...]:
    inputs, outputs = _shape(layer, "pointwise_kernel")[-2:]
    pointwise = Kernel("pointwise_kernel", (inputs, outputs), "io", _channels(layer, "i"), _channels(layer, "o"))
    return (*_depthwise(layer, "depthwise_kernel"), pointwise)


def _einsum(layer: keras.layers.EinsumDense) -> tuple[Kernel, ...]:
    """`"abc,cde->abde"`: inputs `("", "c")`, outputs `("", "d", "e")`, since the kernel has no b."""
    inputs, kernel, outputs = (side.replace("...", ".") for side in _equation(layer))
    summed_and_biased = (set(inputs) - set(outputs)) | set(layer.bias_axes or "")
    if inputs[0] != outputs[:1] or inputs[0] in kernel or inputs[-1] == "." or not summed_and_biased <= set(kernel):
        return ()
    axes = (tuple(letter if letter in kernel else "" for letter in side[1:]) for side in (inputs, outputs))
    found = Kernel("kernel", _shape(layer, "kernel"), kernel, *axes)
    return (found,) if any(found.outputs) else ()


def _einsum_bias(layer: keras.layers.EinsumDense) -> tuple[Mapping[str, Any], tuple[int, ...]]:
    (kernel,) = _einsum(layer)
    first = next(index for index, letter in enumerate(kernel.outputs) if letter)
    return {"bias_axes": "".join(kernel.outputs)}, kernel.sizes(kernel.outputs[first:])


def _equation(layer: keras.layers.EinsumDense) -> tuple[str, str, str]:
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    return inputs, kernel, output


def _by_equation(layer: keras.layers.EinsumDense) -> int | None:
    """The last axis, if it is one that the kernel brings in: `"abc,cd->abd"`."""
    inputs, kernel, output = _equation(layer)
    return -1 if output and output[-1] in kernel and output[-1] not in inputs else None


def _pads(layer: keras.layers.Layer, shape: Shape) -> bool:
    """Whether a convolution pads an input of this shape."""
    if layer.padding == "valid":
        return False
    first = 2 if layer.data_format == "channels_first" else 1
    windows = zip(shape[first : first + layer.rank], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    return any(
        kernel > 1
        and (
            layer.padding == "causal"
            or size is None
            or -(-size // stride) * stride - stride + (kernel - 1) * dilation + 1 > size
        )
        for size, kernel, stride, dilation in windows
    )


def _spreads(layer: keras.layers.Layer, shape: Shape) -> bool:
    """A transposed convolution adds up products in numbers that vary from place to place, as if there were zeros."""
    return any(size > 1 for size in (*layer.kernel_size, *layer.strides))


def _shape(layer: keras.layers.Layer, name: str) -> tuple[int, ...]:
    return next(tuple(variable.shape) for variable in layer.variables if variable.name == name)


LINEAR: dict[type, Linear] = {
    keras.layers.Dense: Linear(lambda layer: -1, _dense),
    keras.layers.EinsumDense: Linear(_by_equation, _einsum, no_bias=("bias_axes", None), full_bias=_einsum_bias),
    **dict.fromkeys(families.CONVOLUTIONS, Linear(_by_data_format, _convolution, _pads)),
    **dict.fromkeys(families.TRANSPOSED_CONVOLUTIONS, Linear(_by_data_format, _transposed, _spreads)),
    **dict.fromkeys(families.DEPTHWISE_CONVOLUTIONS, Linear(_by_data_format, _depthwise, _pads)),
    **dict.fromkeys(families.SEPARABLE_CONVOLUTIONS, Linear(_by_data_format, _separable, _pads)),
}
"""All that kerasbn knows of each type of linear layer; a further entry teaches it one more."""


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
    """The bias of a linear layer, if it has one number a channel and nothing else acts on it or on the sum with it."""
    core = core_of(layer)
    bias: keras.Variable | None = core.bias
    if bias is None or len(bias.shape) != 1 or bias.regularizer is not None or bias.constraint is not None:
        return None
    if core.quantization_mode == "float8":  # which rounds it to bfloat16
        return None
    is_watched = layer.activity_regularizer is not None and not has_activation(layer)
    return None if is_watched else bias


def has_activation(layer: keras.layers.Layer) -> bool:
    """Whether a layer has a built-in activation that does something."""
    return activations.name_of_function(getattr(core_of(layer), "activation", None)) != activations.LINEAR


def adds_bias_in_place(site: CallSite, *, full: bool = False) -> bool:
    """Whether the bias of a linear layer, if it has one, is added on the axes that it is meant for.

    Args:
        site: A call of the layer.
        full: Whether the same is asked of a bias on each channel, besides its own. Defaults to `False`.
    """
    layer = core_of(site.operation)
    value = shape_of_step(site, site.outputs[0])
    biases: list[Shape] = []
    if layer.bias is not None:
        behind = len(value) - 2 if channel_axis(layer) == 1 else 0
        biases.append((*layer.bias.shape, *[1] * behind))
    if full:
        last = LINEAR[type(layer)].kernels(layer)[-1]
        biases.append(last.sizes(last.outputs))
    return all(is_added_in_place(bias, value) for bias in biases)


def is_added_in_place(addend: Shape, value: Shape) -> bool:
    """Whether what has fewer axes than a value, or shorter ones, is added to it as numpy broadcasts it.

    On TensorFlow, `keras.ops.add` takes what is long on one axis alone for a bias of the channels, and adds it on
    whichever axis is as long, the last one first. So it is tried, in small: what is as long, or may be, is 2 long.
    An open size of the addend may turn out to be 1.
    """
    long = [size for size in addend if size not in (None, 1)]
    if len(long) != 1:
        return True
    small = np.arange(2.0).reshape([2 if size in long else 1 for size in addend])
    zeros = np.zeros([2 if size in (None, *long) else 3 for size in value])
    return np.array_equal(keras.ops.convert_to_numpy(keras.ops.add(zeros, small)), zeros + small)


def shape_of_step(site: CallSite, value: Value) -> Shape:
    """The shape of an input or output of a layer, of a single step within `TimeDistributed`."""
    batch, *sizes = value.shape
    return (batch, *sizes[step_axes(site.operation) :])
