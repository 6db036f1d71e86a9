"""Sequence-wise normalized recurrent layers as the layers that they wrap, and back.

At inference B is an affine map of each column of the input product, so it goes into the weights that
make it, whatever the recurrence:

    s (W x_t) + t + b   =   (s W) x_t + (t + b)

where s and t are by column. A GRU with `reset_after` has two rows of biases, of which that of the
input takes t. The other way B starts as the identity, s = 1 and t = 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.catalog.normalization import identity_weights, is_known, map_of
from kerasbn.catalog.recurrent import bias_with, cells_behind
from kerasbn.graph.clone import constructor_arguments, make, spec_of, wrapped_by
from kerasbn.graph.model import LayerSpec, Values
from kerasbn.reasons import Reason, Refusal
from kerasbn.serializable import BatchNormalizedRNN
from kerasbn.serializable.batch_normalized_rnn import FLAGS, cells_of, check_layer

_DROPOUT = ("dropout", "recurrent_dropout")


def is_normalized(layer: Any) -> bool:
    """Whether a layer is a recurrent one that is normalized sequence-wise, or a wrapper of Keras's around one."""
    return type(layer) is BatchNormalizedRNN or any(map(is_normalized, wrapped_by(layer).values()))


def check_foldable(layer: keras.layers.Layer) -> None:
    """Refuse to fold what would not be exact."""
    for each in _keras.sublayers(layer):
        if type(each) is BatchNormalizedRNN:
            _check_masks(each)
    for norm, cell in cells_behind([layer]).items():
        if not is_known(norm):
            raise Refusal(Reason.UNKNOWN_SUBCLASS)
        if cell.variable_dtype not in ("float32", "float64"):
            raise Refusal(Reason.PRECISION)
        if not all(np.all(np.isfinite(array)) for array in map_of(norm)):
            raise Refusal(Reason.NON_FINITE)


def folded(layer: keras.layers.Layer) -> LayerSpec:
    """The layer that a normalized one wraps, with the normalization in its weights; wrappers stay around it."""
    if not is_normalized(layer):
        return spec_of(layer)
    if type(layer) is not BatchNormalizedRNN:
        return _rewrapped(layer, folded)
    wrapped = layer.rnn_layer
    config = constructor_arguments(wrapped)
    config |= {name: getattr(layer, name) for name in ("name", "trainable", *FLAGS)}
    values: Values = {}
    held = _keras.sublayers(wrapped)
    for cell, norm, arguments in zip(cells_of(layer), layer.norms, _arguments_of_cells(config), strict=True):
        arguments["use_bias"] = True
        place = held.index(cell)
        values[place, "kernel"] = functools.partial(_kernel, cell, norm)
        values[place, "bias"] = functools.partial(_bias, cell, norm)
    return LayerSpec(type(wrapped), config, origin=wrapped, values=values)


def normalized(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization, *, preserve: bool = True) -> LayerSpec:
    """A recurrent layer normalized sequence-wise; wrappers stay around it.

    Args:
        layer: The layer, one that `check_normalizable` lets pass.
        norm: The normalization whose configuration each cell's gets, without `beta` where the cell has a bias,
            which does the same.
        preserve: Whether the normalizations start as the identity at inference. Defaults to `True`.

    Raises:
        OptionError: if the normalization cannot start as the identity.
    """
    if type(layer) is BatchNormalizedRNN:
        return spec_of(layer)
    if wrapped_by(layer):
        return _rewrapped(layer, lambda each: normalized(each, norm, preserve=preserve))
    config = {
        "rnn_layer": spec_of(layer),
        "norm": [_without_beta(norm) if cell.use_bias else norm for cell in cells_of(layer)],
        "name": layer.name,
        "trainable": layer.trainable,
    }
    values = identity_weights(norm, None) if preserve else {}
    return LayerSpec(BatchNormalizedRNN, config, values=values)


def check_normalizable(layer: keras.layers.Layer) -> None:
    """Refuse a layer that has no input product that is known, such as a convolutional one, or one of a cell of its own.

    Raises:
        Refusal: if it cannot be normalized.
    """
    if type(layer) is BatchNormalizedRNN:
        return
    if wrapped := wrapped_by(layer):
        for each in wrapped.values():
            check_normalizable(each)
        return
    _check_masks(layer)
    try:
        check_layer(layer)
    except ValueError as error:
        cells = {type(cell).__name__: None for cell in cells_of(layer)} if isinstance(layer, keras.layers.RNN) else {}
        of = f" of {' and '.join(cells)}" if type(layer) is keras.layers.RNN else ""
        kind = f"{type(layer).__name__}{of}"
        raise Refusal(Reason.OPAQUE, f"{kind} is carried over as it is: no input product of it is known") from error


def _check_masks(layer: Any) -> None:
    """Refuse a layer of which Keras, from step to step unrolled and backwards, zeroes others than the masked steps."""
    if all(getattr(layer, flag, False) for flag in ("unroll", "go_backwards", "zero_output_for_mask")):
        raise Refusal(
            Reason.OPAQUE, "unrolled and backwards, Keras zeroes the outputs of other steps than those that are masked"
        )


def dropout_of(layer: Any) -> set[str]:
    """The arguments of a recurrent layer, or of its cells, by which it drops values while training."""
    core = _core(layer)
    cells = cells_of(core) if isinstance(core, keras.layers.RNN) else []
    known = [cell for cell in cells if _keras.is_keras_own(type(cell))]
    return {name for cell in known for name in _DROPOUT if getattr(cell, name, 0)}


def without_dropout(layer: Any, names: Collection[str]) -> Mapping[str, Any]:
    """The arguments of a recurrent layer that have to change if it is not to drop values by some of them."""
    config = _core(layer).get_config()
    for arguments in _arguments_of_cells(config):
        arguments.update((name, 0.0) for name in names if name in arguments)
    return {"cell": config["cell"]} if "cell" in config else dict.fromkeys(names, 0.0)


def _core(layer: Any) -> Any:
    """The layer that says what its cells are made from: what is inside of wrappers, of two directions the first."""
    wrapped = wrapped_by(layer)
    return _core(next(iter(wrapped.values()))) if wrapped else layer


def _rewrapped(layer: keras.layers.Layer, change: Callable[[keras.layers.Layer], LayerSpec]) -> LayerSpec:
    """The like of a wrapper of Keras's around what becomes of the layers in it."""
    changed = {argument: change(each) for argument, each in wrapped_by(layer).items()}
    return LayerSpec(type(layer), {**constructor_arguments(layer), **changed})


def _without_beta(norm: keras.layers.BatchNormalization) -> keras.layers.BatchNormalization:
    return make(LayerSpec(type(norm), {**constructor_arguments(norm), "center": False}))


def _arguments_of_cells(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The part of a recurrent layer's configuration that each of its cells is made from."""
    if "cell" not in config:
        return [config]
    inner: dict[str, Any] = config["cell"]["config"]
    return [cell["config"] for cell in inner["cells"]] if "cells" in inner else [inner]


def _kernel(cell: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> Array:
    return array_of(cell.kernel) * map_of(norm).scale


def _bias(cell: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> Array:
    """The bias of a cell, with the shift of its input product."""
    return bias_with(cell, map_of(norm).shift)
