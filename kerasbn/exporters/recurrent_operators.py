"""Keras's recurrent layers as ONNX's LSTM, GRU and RNN, not as the loops over their steps that Keras traces.

While a model is traced, each stands as one operation that TensorFlow never runs, PyFunc, which has the
operator's inputs and outputs already and becomes it later. The operators know no mask but a number of
steps for each example, so a layer that gets a mask is left to tf2onnx, which mostly writes a loop; so is one with
activations that they have not.

    Keras     LSTM i, f, g, o     GRU z, r, h         kernel (inputs, gates)      bias of W and of U
    ONNX      LSTM i, o, f, g     GRU z, r, h         W (1, gates, inputs)        B (1, both), one behind the other
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasbn import _keras
from kerasbn.catalog.activations import LINEAR, name_of_function

_GATES: Mapping[type, tuple[str, tuple[int, ...]]] = {
    keras.layers.LSTM: ("LSTM", (0, 3, 1, 2)),
    keras.layers.GRU: ("GRU", (0, 1, 2)),
    keras.layers.SimpleRNN: ("RNN", (0,)),
}
"""The operator of each layer, and Keras's gates in its order."""

_ACTIVATIONS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "tanh": ("Tanh", ()),
    "sigmoid": ("Sigmoid", ()),
    "relu": ("Relu", ()),
    "softsign": ("Softsign", ()),
    "hard_sigmoid": ("HardSigmoid", (1 / 6, 0.5)),
    LINEAR: ("Affine", (1.0, 0.0)),
}
"""The operator's name of each activation, with alpha and beta."""


class RecurrentOperators:
    """The operators that stand in the place of loops in one traced model."""

    def __init__(self) -> None:
        self._operators: dict[bytes, tuple[str, dict[str, Any]]] = {}

    @contextmanager
    def traced(self, model: keras.Model) -> Iterator[None]:
        """Inside, the recurrent layers of a model are traced as operators, in this thread."""
        thread = threading.get_ident()

        def instead(loop: Callable[..., Any], layer: Any, **arguments: Any) -> Any:
            if threading.get_ident() != thread or arguments["mask"] is not None:
                return loop(**arguments)
            return self._run(layer, arguments["sequences"], keras.tree.flatten(arguments["initial_state"]))

        layers = [layer for layer in _keras.sublayers(model) if _has_operator(layer)]
        with _keras.calls_through(layers, instead, method="inner_loop"):
            yield

    def write(self, ctx: Any, node: Any, name: str, args: Any) -> None:
        """Put the operator in the place of its PyFunc; what tf2onnx calls a custom op handler."""
        kind, attributes = self._operators[node.attr["token"].s]
        sequences, *weights_and_states = node.input
        inputs = [sequences, *weights_and_states[:3], "", *weights_and_states[3:]]
        outputs = list(node.output)
        shapes, dtypes = [ctx.get_shape(each) for each in outputs], [ctx.get_dtype(each) for each in outputs]
        ctx.remove_node(node.name)
        ctx.make_node(kind, inputs, attr=attributes, outputs=outputs, shapes=shapes, dtypes=dtypes, name=node.name)

    def _run(self, layer: Any, sequences: Any, states: list[Any]) -> tuple[Any, Any, list[Any]]:
        """What the layer's loop returns: the last output, all outputs, the states behind the last step."""
        if layer.go_backwards:
            sequences = tf.reverse(sequences, [1])
        kind, order = _GATES[type(layer)]
        inputs = [tf.transpose(sequences, (1, 0, 2)), *_weights(layer, order), *(state[None] for state in states)]
        found = tf.numpy_function(_never, inputs, [tf.float32] * (1 + len(states)))
        self._operators[found[0].op.get_attr("token")] = kind, _attributes(layer)
        (batch, _), (_, steps, _) = states[0].shape, sequences.shape
        outputs = tf.ensure_shape(found[0], (steps, 1, batch, layer.units))
        last = [tf.ensure_shape(state, (1, batch, layer.units))[0] for state in found[1:]]
        return last[0], tf.transpose(outputs[:, 0], (1, 0, 2)), last


def _never(*arrays: Any) -> None:
    raise NotImplementedError("An operator of ONNX's does not run in TensorFlow.")


def _has_operator(layer: Any) -> bool:
    return (
        type(layer) in _GATES
        and layer.variable_dtype != "float64"  # ONNX Runtime has them in float32
        and all(name_of_function(function) in _ACTIVATIONS for function in _functions(layer))
    )


def _functions(layer: Any) -> list[Callable[..., Any]]:
    """The activations in the operator's order; the last one of an LSTM is for its outputs."""
    if type(layer) is keras.layers.SimpleRNN:
        return [layer.activation]
    outputs = [layer.activation] if type(layer) is keras.layers.LSTM else []
    return [layer.recurrent_activation, layer.activation, *outputs]


def _attributes(layer: Any) -> dict[str, Any]:
    activations = [_ACTIVATIONS[name_of_function(function)] for function in _functions(layer)]
    values = [each for _, each in activations if each]
    attributes = {"hidden_size": layer.units, "activations": [name for name, _ in activations]}
    if values:
        attributes |= {
            "activation_alpha": [alpha for alpha, _ in values],
            "activation_beta": [beta for _, beta in values],
        }
    return attributes | ({"linear_before_reset": int(layer.reset_after)} if type(layer) is keras.layers.GRU else {})


def _weights(layer: Any, order: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """W, U and both their biases as the operator takes them."""
    cell = layer.cell
    kernels = [tf.transpose(_in_order(each, order))[None] for each in (cell.kernel, cell.recurrent_kernel)]
    if not cell.use_bias:
        return *kernels, tf.zeros((1, 2 * cell.kernel.shape[-1]))
    bias = tf.reshape(_in_order(cell.bias, order), (1, -1))
    return *kernels, bias if len(cell.bias.shape) == 2 else tf.concat([bias, tf.zeros_like(bias)], 1)


def _in_order(weight: Any, order: tuple[int, ...]) -> Any:
    columns = np.arange(weight.shape[-1]).reshape(len(order), -1)[list(order)]
    return tf.gather(tf.cast(weight.value, "float32"), columns.reshape(-1), axis=-1)
