"""What a recurrent cell adds to its input product: its bias, in the first of its rows where a GRU has two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.serializable import BatchNormalizedRNN
from kerasbn.serializable.batch_normalized_rnn import cells_of


def bias_with(cell: Any, shift: Array) -> Array:
    """The bias of a cell that adds a shift to its input product as well."""
    rows = 2 if getattr(cell, "reset_after", False) else 1
    bias = np.zeros((rows, shift.size)) if cell.bias is None else np.array(array_of(cell.bias)).reshape(rows, -1)
    bias[0] += shift
    return bias if rows == 2 else bias[0]


def cells_behind(
    layers: Iterable[keras.layers.Layer],
) -> dict[keras.layers.BatchNormalization, keras.layers.Layer]:
    """The cell of each batch normalization whose outcome is a cell's input product, in some layers."""
    held = (each for layer in layers for each in _keras.sublayers(layer))
    return {
        norm: cell
        for layer in held
        if type(layer) is BatchNormalizedRNN
        for cell, norm in zip(cells_of(layer), layer.norms, strict=True)
    }
