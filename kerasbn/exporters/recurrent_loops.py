"""Keras's recurrent layers as loops that LiteRT has a form for.

What Keras traces keeps the outputs in a list of tensors, which LiteRT has only of a fixed shape, batch included. Here
they are one tensor that grows by each step; any batch and any number of steps go through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from kerasbn import _keras

_LAYERS = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN, keras.layers.RNN)
_CELLS = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)


@contextmanager
def traced(model: keras.Model) -> Iterator[None]:
    """Inside, the recurrent layers of a model are traced as such loops, in this thread."""
    thread = threading.get_ident()

    def instead(loop: Callable[..., Any], layer: Any, **arguments: Any) -> Any:
        if threading.get_ident() != thread:
            return loop(**arguments)
        return _loop(layer, arguments["sequences"], arguments["initial_state"], arguments["mask"])

    layers = [layer for layer in _keras.sublayers(model) if type(layer) in _LAYERS and type(layer.cell) in _CELLS]
    with _keras.calls_through(layers, instead, method="inner_loop"):
        yield


def _loop(layer: Any, sequences: Any, initial_state: Any, mask: Any) -> tuple[Any, Any, list[Any]]:
    """What the layer's loop returns: the last output, all outputs, the states behind the last step."""
    steps = _steps_first(layer, sequences)
    valid = None if mask is None else tf.expand_dims(_steps_first(layer, mask), -1)
    states = keras.tree.flatten(initial_state)
    nothing = tf.zeros_like(states[0])  # a step's output is of the shape of these cells' first state

    def step(number: Any, outputs: Any, last: Any, *states: Any) -> tuple[Any, ...]:
        output, new = layer.cell(steps[number], list(states), training=False)
        if valid is not None:
            output = tf.where(valid[number], output, nothing if layer.zero_output_for_mask else last)
            new = [tf.where(valid[number], *pair) for pair in zip(new, states, strict=True)]
        return number + 1, tf.concat([outputs, output[None]], 0) if layer.return_sequences else outputs, output, *new

    start = (tf.constant(0), tf.zeros((0, *_sizes(nothing)), nothing.dtype), nothing, *states)
    shapes = tuple(each.shape for each in start)
    grown = (shapes[0], tf.TensorShape((None, *shapes[1][1:])), *shapes[2:])
    _, outputs, last, *states = tf.while_loop(
        lambda number, *_: number < tf.shape(steps)[0], step, start, shape_invariants=grown
    )
    if layer.return_sequences:
        outputs.set_shape((steps.shape[0], *outputs.shape[1:]))
    return last, _steps_second(outputs), states


def _sizes(array: Any) -> list[Any]:
    return [tf.shape(array)[axis] if size is None else size for axis, size in enumerate(array.shape)]


def _steps_first(layer: Any, array: Any) -> Any:
    array = _steps_second(array)
    return tf.reverse(array, [0]) if layer.go_backwards else array


def _steps_second(array: Any) -> Any:
    """With its first two axes exchanged."""
    return tf.transpose(array, (1, 0, *range(2, len(array.shape))))
