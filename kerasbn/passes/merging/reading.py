"""Read values as forms: one entry a type of layer or name of an operation. The rest is not linear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import keras
import numpy as np
from keras import layers

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.catalog import families, normalization
from kerasbn.catalog.linear import channel_axis, has_activation, is_added_in_place
from kerasbn.catalog.normalization import ChannelMap
from kerasbn.catalog.roles import Role, mixes, role_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.model import CallSite, Graph, Value
from kerasbn.graph.read import read_call
from kerasbn.graph.run import call_at_inference, outputs_of
from kerasbn.passes.merging.form import Form, NotLinear, mapped, padded, summed, through
from kerasbn.passes.merging.window import window_of
from kerasbn.reasons import Reason, Refusal
from kerasbn.serializable import BatchNormalization

KERNELS = (layers.Dense, *families.CONVOLUTIONS, *families.DEPTHWISE_CONVOLUTIONS)
"""The linear layers that merge."""

_SUMS: Mapping[type, Callable[[int], Sequence[float]]] = {
    layers.Add: lambda count: [1.0] * count,
    layers.Subtract: lambda count: [1.0, -1.0],
    layers.Average: lambda count: [1.0 / count] * count,
}
_SUMMING_OPERATIONS = {"Add": layers.Add, "Subtract": layers.Subtract}


class Reader:
    """Reads values of a graph, and notes what it read.

    Attributes:
        read: The call sites that it has come past, in graphs inside as well.
    """

    def __init__(self, facts: Facts, axis: int) -> None:
        self.read: dict[CallSite, None] = {}
        self._facts = facts
        self._axis = axis

    def form(self, graph: Graph, value: Value, known: dict[Value, Form]) -> Form:
        """The form of a value of a graph, given that of its base; what is found on the way becomes known.

        Raises:
            NotLinear: if it has none.
            Refusal: if it has one, were it not for the reason.
        """
        if value not in known:
            site = graph.producers.get(value)
            if site is None or site.is_input:
                raise NotLinear
            forms = [self.form(graph, each, known) for each in site.inputs]
            self.read[site] = None
            known[value] = self._behind(site, forms)
        return known[value]

    def _behind(self, site: CallSite, forms: Sequence[Form]) -> Form:
        """The form of what a call site yields, from those of what it gets."""
        if (weights := summands(site)) is not None:
            return summed(forms, weights, lengths(site.outputs[0], self._axis))
        if len(forms) != 1 or len(site.outputs) != 1 or site.inputs[0].spec.dtype != site.outputs[0].spec.dtype:
            raise NotLinear
        operation = site.operation
        if isinstance(operation, Graph):
            return self._through_graph(operation, forms[0])
        if role_of(operation) in (Role.DROPOUT, Role.IDENTITY):
            if site.address in self._facts.trained:
                raise Refusal(Reason.MONTE_CARLO, site.address)
            return forms[0]
        if normalization.is_known(operation) and site.address in self._facts.trained:
            raise Refusal(Reason.TRAINING, site.address)
        if (step := _STEPS.get(type(operation))) is not None:
            return step(site, forms[0], self._axis)
        if (name := _keras.operation_name(operation)) in _WITH_CONSTANT:
            return mapped(forms[0], _with_constant(site, name, self._axis))
        if (inside := _looked_into(site)) is not None:
            return self._through_graph(inside, forms[0])
        raise NotLinear

    def _through_graph(self, graph: Graph, form: Form) -> Form:
        entering, leaving = (keras.tree.flatten(structure) for structure in (graph.inputs, graph.outputs))
        if len(entering) != 1 or len(leaving) != 1:
            raise NotLinear
        return self.form(graph, leaving[0], {entering[0]: form})


def summands(site: CallSite) -> Sequence[float] | None:
    """The weights with which a call site adds up its inputs, all of one shape; `None` if it does something else."""
    operation = site.operation
    if isinstance(operation, Graph) or not isinstance(operation, keras.Operation):
        return None
    kind = _SUMMING_OPERATIONS.get(_keras.operation_name(operation) or "", type(operation))
    shapes = {value.shape for value in (*site.inputs, *site.outputs)}
    if kind not in _SUMS or len(_given(site)) != len(site.inputs) or len(shapes) > 1:
        return None
    return _SUMS[kind](len(site.inputs))


def maps_channels(site: CallSite) -> bool:
    """Whether a call site may scale and shift the channels of a value, and is no batch normalization."""
    operation = site.operation
    if len(site.inputs) != 1 or len(site.outputs) != 1 or isinstance(operation, Graph):
        return False
    known = type(operation) is layers.Rescaling or _keras.operation_name(operation) in _WITH_CONSTANT
    return known or _has_channel_weights(operation)


def may_be_linear(site: CallSite) -> bool:
    """Whether a call site is worth being read, as far as its kind tells."""
    operation = site.operation
    if isinstance(operation, Graph) or summands(site) is not None:
        return True
    if len(site.inputs) != 1 or len(site.outputs) != 1 or site.is_input:
        return False
    return type(operation) in _STEPS or role_of(operation) in (Role.DROPOUT, Role.IDENTITY) or maps_channels(site)


def lengths(value: Value, axis: int) -> list[int | None]:
    """How long a value is along each axis of places: all but the batch and the channels."""
    return [size for at, size in enumerate(value.shape) if at not in (0, axis)]


def _given(site: CallSite) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten((site.args, dict(site.kwargs))) if leaf is not None]


# What is on the way


def _kernel(site: CallSite, form: Form, axis: int) -> Form:
    layer = cast("keras.layers.Layer", site.operation)
    value = site.inputs[0]
    if has_activation(layer) or cast("int", channel_axis(layer)) % len(value.shape) != axis:
        raise NotLinear
    channels = site.outputs[0].shape[axis]
    return through(form, site, window_of(layer, lengths(value, axis)), cast("int", channels))


def _zeros(site: CallSite, form: Form, axis: int) -> Form:
    layer: Any = site.operation
    if axis != (1 if getattr(layer, "data_format", "") == "channels_first" else len(site.inputs[0].shape) - 1):
        raise NotLinear
    given = layer.padding
    return padded(form, [tuple(given)] if isinstance(given[0], int) else [tuple(each) for each in given])


def _normalization(site: CallSite, form: Form, axis: int) -> Form:
    layer = cast("keras.layers.BatchNormalization", site.operation)
    if layer.axis % len(site.inputs[0].shape) != axis:
        raise NotLinear
    return mapped(form, normalization.map_of(layer))


def _rescaling(site: CallSite, form: Form, axis: int) -> Form:
    layer: Any = site.operation
    scale, offset = (_by_channel(each, site.inputs[0], axis) for each in (layer.scale, layer.offset))
    return mapped(form, ChannelMap(scale, offset))


_WITH_CONSTANT = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative")
"""Operations that map the channels of a value, if all else that they get are numbers."""


def _with_constant(site: CallSite, name: str | None, axis: int) -> ChannelMap:
    """The map that an operation such as `2 * x` is, of a value and a number, or of numbers for each channel."""
    value = site.inputs[0]
    one, none = np.ones(()), np.zeros(())
    if name == "Negative":
        return ChannelMap(-one, none)
    given = _given(site)
    constants = [leaf for leaf in given if leaf is not value]
    if len(given) != 2 or len(constants) != 1:
        raise NotLinear
    constant = _by_channel(constants[0], value, axis)
    value_first = given[0] is value
    if name == "Multiply":
        return ChannelMap(constant, none)
    if name in ("Divide", "TrueDivide") and value_first:
        return ChannelMap(1 / constant, none)
    if name in ("Add", "Subtract") and is_added_in_place(np.shape(constants[0]), value.shape):
        sign = one if value_first or name == "Add" else -one
        return ChannelMap(sign, constant if name == "Add" or not value_first else -constant)
    raise NotLinear


def _by_channel(constant: Any, value: Value, axis: int) -> Array:
    """A number, or one for each channel, from what is brought to the shape of a value."""
    if not isinstance(constant, keras.Variable) and not isinstance(constant, int | float | list | tuple | np.ndarray):
        constant = keras.ops.convert_to_numpy(constant)
    array = array_of(constant)
    rank = len(value.shape)
    shape = (1,) * (rank - array.ndim) + array.shape
    others = (size for at, size in enumerate(shape) if at != axis)
    if array.ndim > rank or any(size != 1 for size in others) or array.size not in (1, value.shape[axis]):
        raise NotLinear
    return array.reshape(-1) if array.size > 1 else array.reshape(())


_STEPS: Mapping[type, Callable[[CallSite, Form, int], Form]] = {
    **dict.fromkeys(KERNELS, _kernel),
    **dict.fromkeys((layers.BatchNormalization, BatchNormalization), _normalization),
    **dict.fromkeys(families.ZERO_PADDINGS, _zeros),
    layers.Rescaling: _rescaling,
}


def _has_channel_weights(operation: Any) -> bool:
    """Whether an operation is a layer by itself that nothing is known of, with a number for each channel at most."""
    if not isinstance(operation, keras.layers.Layer) or role_of(operation) is not Role.OTHER:
        return False
    return not mixes(operation) and len(_keras.sublayers(operation)) == 1


def _looked_into(site: CallSite) -> Graph | None:
    """What a layer does of which nothing is known, such as one that scales a branch; `None` if that cannot be seen."""
    layer: Any = site.operation
    if not _has_channel_weights(layer) or len(_given(site)) != 1:
        return None
    shape, dtype = site.inputs[0].shape, site.inputs[0].spec.dtype
    given = layers.InputLayer(batch_shape=shape, dtype=dtype, name="inputs").output
    sample = np.random.default_rng(0).normal(size=[size or 3 for size in shape]).astype("float32")
    with _keras.forgotten_calls([layer]), keras.StatelessScope() as scope:  # what it holds stays as it is
        try:
            graph = read_call(layer, given, layer.call(given), site.path, {})
            tensor = keras.ops.cast(sample, dtype)
            expected, got = layer(tensor, training=False), outputs_of(graph, [tensor], call_at_inference)[0]
        except Exception:  # whatever the user's own code raises
            return None
    same = np.allclose(array_of(expected), array_of(got), rtol=1e-3, atol=1e-6)
    return graph if same and not scope.state_mapping else None
