"""The recurrences of Keras's cells, on input products that are there for all steps.

With z = W x_t + b given, and U the recurrent kernel,

    SimpleRNN              h_t = f(z + U h)
    LSTM                   i, f, g, o = z + U h
                           c_t = s(f) c + s(i) a(g)
                           h_t = s(o) a(c_t)
    GRU                    z, r = s(z_zr + U_zr h)
                           h_t = z h + (1 - z) a(z_h + U_h (r h))
    GRU, reset after       the same with r (U_h h + b_h) in the place of U_h (r h), and U h + b' ahead

where h and c are those of the step before. The products by gate take one kernel, side by side; with
dropout, each gate may have a mask of its own for what it multiplies, one for all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

Step = Callable[[Any, Any], tuple[Any, list[Any]]]
"""One step: from an input product and the states to the output and the states behind it."""


def input_products(cell: keras.layers.Layer, sequences: Any, training: bool | None) -> Any:
    """W x of all steps, which come first, as one product."""
    x = ops.cast(sequences, cell.compute_dtype)
    masks = cell.get_dropout_mask(x[0]) if training and 0 < cell.dropout < 1 else None
    return _products(x, _weight(cell, "kernel"), masks)


def with_input_bias(cell: keras.layers.Layer, products: Any) -> Any:
    """W x with what the cell adds to it."""
    products = ops.cast(products, cell.compute_dtype)
    if not cell.use_bias:
        return products
    bias = _weight(cell, "bias")
    return ops.add(products, bias[0] if len(bias.shape) == 2 else bias)  # unlike +, fused on TensorFlow


def recurrence(cell: keras.layers.Layer, state: Any, training: bool | None) -> Step:
    """The step of a cell.

    Args:
        cell: The cell.
        state: Its first state at the start, for the shape of dropout masks.
        training: Whether it drops some of the state.
    """
    masks = cell.get_recurrent_dropout_mask(state) if training and 0 < cell.recurrent_dropout < 1 else None
    return RECURRENCES[type(cell)](cell, masks)


def _simple_rnn(cell: keras.layers.Layer, masks: Any) -> Step:
    kernel = _weight(cell, "recurrent_kernel")

    def step(products: Any, states: Any) -> tuple[Any, list[Any]]:
        h = cell.activation(products + _products(states[0], kernel, masks))
        return h, [h]

    return step


def _lstm(cell: keras.layers.Layer, masks: Any) -> Step:
    kernel = _weight(cell, "recurrent_kernel")

    def step(products: Any, states: Any) -> tuple[Any, list[Any]]:
        h, c = states
        i, f, g, o = ops.split(products + _products(h, kernel, masks), 4, axis=-1)
        c = cell.recurrent_activation(f) * c + cell.recurrent_activation(i) * cell.activation(g)
        h = cell.recurrent_activation(o) * cell.activation(c)
        return h, [h, c]

    return step


def _gru(cell: keras.layers.Layer, masks: Any) -> Step:
    kernel, units = _weight(cell, "recurrent_kernel"), cell.units
    bias = _weight(cell, "bias")[1] if cell.reset_after and cell.use_bias else None
    for_gates, for_candidate = kernel[:, : 2 * units], kernel[:, 2 * units :]
    masks_of_gates, mask_of_candidate = (masks[:2], masks[2]) if masks else (None, None)

    def step(products: Any, states: Any) -> tuple[Any, list[Any]]:
        h = states[0]
        if cell.reset_after:
            inner = _products(h, kernel, masks)
            inner = inner if bias is None else inner + bias
            gates, candidate = inner[:, : 2 * units], inner[:, 2 * units :]
        else:
            gates, candidate = _products(h, for_gates, masks_of_gates), None
        z, r = ops.split(cell.recurrent_activation(products[:, : 2 * units] + gates), 2, axis=-1)
        candidate = _products(r * h, for_candidate, mask_of_candidate) if candidate is None else r * candidate
        h = z * h + (1 - z) * cell.activation(products[:, 2 * units :] + candidate)
        return h, [h]

    return step


RECURRENCES: Mapping[type, Callable[[keras.layers.Layer, Any], Step]] = {
    keras.layers.SimpleRNNCell: _simple_rnn,
    keras.layers.LSTMCell: _lstm,
    keras.layers.GRUCell: _gru,
}
"""The cells that are known. A subclass may compute something else."""


def _products(x: Any, kernel: Any, masks: Any) -> Any:
    """What a kernel makes of x, with a dropout mask for all of it, one for each gate, or none."""
    if isinstance(masks, Sequence):
        parts = ops.split(kernel, len(masks), axis=-1)
        return ops.concatenate([ops.matmul(x * mask, part) for mask, part in zip(masks, parts, strict=True)], axis=-1)
    return ops.matmul(x if masks is None else x * masks, kernel)


def _weight(cell: keras.layers.Layer, name: str) -> Any:
    return ops.cast(getattr(cell, name), cell.compute_dtype)
