"""The activations, and where batch normalization goes relative to each.

After an s-shaped activation, before one whose output is far from Gaussian, such as ReLU. For
tanh and softsign the literature agrees (VGG16 on CIFAR-100, "Tanh works better with asymmetry",
2023: tanh 64.84 before, 72.17 after; ReLU 73.68 before, 71.79 after); for ReLU it is disputed,
so the user can choose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras

Placing = Literal["before", "after", "none"]

_PLACINGS: Mapping[Placing, str] = {
    "after": "tanh hard_tanh softsign sigmoid hard_sigmoid sparse_sigmoid",
    "before": (
        "relu relu6 leaky_relu prelu elu celu gelu silu hard_silu mish softplus squareplus sparse_plus soft_shrink "
        "hard_shrink tanh_shrink threshold log_sigmoid exponential glu"
    ),
    "none": "selu softmax log_softmax sparsemax",
}

PLACING: Mapping[str, Placing] = {name: placing for placing, names in _PLACINGS.items() for name in names.split()}
"""Where BN goes relative to each activation that Keras names, under `position="auto"`."""

_OUTPUT = (
    "softmax log_softmax sparsemax sigmoid hard_sigmoid sparse_sigmoid log_sigmoid tanh hard_tanh softsign "
    "softplus squareplus sparse_plus exponential linear unknown"
)
OUTPUT = frozenset(_OUTPUT.split())
"""Activations that make a value a prediction: a probability, a scale, something bounded. The others are hidden."""

UNIT = frozenset({"sigmoid", "hard_sigmoid", "sparse_sigmoid", "softmax", "sparsemax"})
"""Activations whose values lie between 0 and 1, so that what they multiply is gated."""

HOMOGENEOUS = frozenset({"relu", "leaky_relu", "prelu"})
"""Activations with f(s x) = s f(x) for every s >= 0."""

LINEAR = "linear"
UNKNOWN = "unknown"
"""The name of an activation that is a function of the user's own."""

_FUNCTIONS: Mapping[Any, str] = {
    function: name
    for name in (*PLACING, LINEAR)
    for namespace in (keras.activations, keras.ops)
    if (function := getattr(namespace, name, None)) is not None
}

LAYERS: dict[type, str] = {
    keras.layers.ReLU: "relu",
    keras.layers.LeakyReLU: "leaky_relu",
    keras.layers.PReLU: "prelu",
    keras.layers.ELU: "elu",
    keras.layers.Softmax: "softmax",
    keras.layers.Identity: LINEAR,
}
"""The layers that apply one activation and do nothing else."""

_OPERATIONS: Mapping[str, str] = {"exp": "exponential", "re_lu": "relu", "identity": LINEAR}
"""Operations whose class is not named after the activation."""


def name_of_function(function: Callable[..., Any] | None) -> str:
    """The name of an activation function, `"unknown"` if it is none of Keras's."""
    return LINEAR if function is None else _FUNCTIONS.get(function, UNKNOWN)


def name_of_layer(layer: keras.layers.Layer) -> str | None:
    """The activation that a layer applies, if that is all it does."""
    if type(layer) is keras.layers.Activation:
        return name_of_function(layer.activation)
    return LAYERS.get(type(layer))


def name_of_operation(operation_name: str) -> str | None:
    """The activation that one of Keras's own operations is, `"HardSigmoid"` -> `"hard_sigmoid"`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation_name).lower()
    name = _OPERATIONS.get(snake, snake)
    return name if name in PLACING or name == LINEAR else None
