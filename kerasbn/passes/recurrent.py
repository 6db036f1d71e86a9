"""Sequence-wise normalized recurrent layers as the layers that they wrap, and back.

At inference B is an affine map of each column of the input product, so it goes into the weights that
make it, whatever the recurrence:

    s (W x_t) + t + b   =   (s W) x_t + (t + b)

where s and t are by column. A GRU with `reset_after` has two rows of biases, of which that of the
input takes t. The other way B starts as the identity, s = 1 and t = 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.catalog.normalization import identity_weights, is_known, map_of
from kerasbn.graph.clone import constructor_arguments
from kerasbn.graph.model import LayerSpec, Values
from kerasbn.reasons import Reason, Refusal
from kerasbn.serializable import BatchNormalizedRNN
from kerasbn.serializable.batch_normalized_rnn import FLAGS, cells_of


def is_normalized(layer: Any) -> bool:
    """Whether a layer is a recurrent one that is normalized sequence-wise, be it in one direction of two."""
    if type(layer) is keras.layers.Bidirectional:
        return is_normalized(layer.forward_layer) or is_normalized(layer.backward_layer)
    return type(layer) is BatchNormalizedRNN


def check_foldable(layer: keras.layers.Layer) -> None:
    """Refuse to fold what would not be exact."""
    for each in filter(is_normalized, _keras.sublayers(layer)[type(layer) is keras.layers.Bidirectional :]):
        for cell, norm in zip(cells_of(each), each.norms, strict=True):
            if not is_known(norm):
                raise Refusal(Reason.UNKNOWN_SUBCLASS)
            if cell.variable_dtype not in ("float32", "float64"):
                raise Refusal(Reason.PRECISION)
            if not all(np.all(np.isfinite(array)) for array in map_of(norm)):
                raise Refusal(Reason.NON_FINITE)


def folded(layer: keras.layers.Layer) -> LayerSpec:
    """The layer that a normalized one wraps, with the normalization in its weights; both of two directions."""
    if type(layer) is keras.layers.Bidirectional:
        return _by_direction(layer, folded)
    if not is_normalized(layer):
        return LayerSpec(type(layer), constructor_arguments(layer), origin=layer)
    config = constructor_arguments(layer.rnn_layer)
    config |= {name: getattr(layer, name) for name in ("name", "trainable", *FLAGS)}
    values = _weights_of_cells(layer)
    for cell, norm, arguments in zip(cells_of(layer), layer.norms, _arguments_of_cells(config), strict=True):
        arguments["use_bias"] = True
        place = _keras.sublayers(layer).index(cell)
        values[place, "kernel"] = functools.partial(_kernel, cell, norm)
        values[place, "bias"] = functools.partial(_bias, cell, norm)
    return LayerSpec(type(layer.rnn_layer), config, origin=layer, values=values)


def normalized(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization | None = None) -> LayerSpec:
    """A recurrent layer normalized sequence-wise by what starts as the identity, at inference; both of two directions.

    Args:
        layer: The layer.
        norm: The normalization whose configuration each cell's gets. Defaults to `None`: that of
            `BatchNormalizedRNN`.

    Raises:
        ValueError: if the layer is none that can be normalized so.
        OptionError: if the normalization cannot start as the identity.
    """
    if type(layer) is keras.layers.Bidirectional:
        return _by_direction(layer, lambda each: normalized(each, norm))
    wrapping = BatchNormalizedRNN(type(layer).from_config(layer.get_config()), norm, name=layer.name)
    values = {**_weights_of_cells(layer), **identity_weights(wrapping.norms[0], None)}
    return LayerSpec(BatchNormalizedRNN, wrapping.get_config(), values=values)


def _by_direction(layer: keras.layers.Bidirectional, change: Callable[[keras.layers.Layer], LayerSpec]) -> LayerSpec:
    changed = {"layer": change(layer.forward_layer), "backward_layer": change(layer.backward_layer)}
    return LayerSpec(keras.layers.Bidirectional, {**constructor_arguments(layer), **changed})


def _weights_of_cells(layer: keras.layers.RNN) -> Values:
    """The variables of the cells, which have the same places in a layer that is normalized and in one that is not."""
    places = {id(each): index for index, each in enumerate(_keras.sublayers(layer))}
    return {
        (places[id(cell)], variable.name): functools.partial(_as_it_is, variable)
        for cell in cells_of(layer)
        for variable in _keras.own_variables(cell)
    }


def _arguments_of_cells(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The part of a recurrent layer's configuration that each of its cells is made from."""
    if "cell" not in config:
        return [config]
    inner: dict[str, Any] = config["cell"]["config"]
    return [cell["config"] for cell in inner["cells"]] if "cells" in inner else [inner]


def _as_it_is(variable: keras.Variable) -> keras.Variable:
    return variable


def _kernel(cell: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> Array:
    return array_of(cell.kernel) * map_of(norm).scale


def _bias(cell: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> Array:
    """The bias of a cell, with the shift of its input product."""
    shift = map_of(norm).shift
    rows = 2 if getattr(cell, "reset_after", False) else 1
    bias = np.zeros((rows, shift.size)) if cell.bias is None else array_of(cell.bias).reshape(rows, -1)
    bias[0] += shift
    return bias if rows == 2 else bias[0]
