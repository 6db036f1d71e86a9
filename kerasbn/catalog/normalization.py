"""Batch normalization as the affine map that it is at inference, channel by channel.

    y = scale x + shift
    scale = gamma / sqrt(variance + epsilon)              gamma = scale sqrt(variance + epsilon)
    shift = beta - mean scale                             beta  = shift + mean scale

(Ioffe & Szegedy, 2015, Algorithm 2, step 11.) The left side reads a layer, the right side gives the
weights with which it computes a given map, whatever its statistics.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.errors import OptionError
from kerasbn.graph.clone import constructor_arguments, make
from kerasbn.graph.model import LayerSpec, Operation, Values, core_of, type_of
from kerasbn.serializable import BatchNormalization

_KNOWN = (keras.layers.BatchNormalization, BatchNormalization)


class ChannelMap(NamedTuple):
    """A map y = scale x + shift of each channel, in float64, of shape `(channels,)`."""

    scale: Array
    shift: Array


_UNCHANGED = ChannelMap(np.ones(()), np.zeros(()))


def is_known(operation: Operation) -> bool:
    """Whether an operation is a batch normalization whose inference is known, of every step or by itself.

    A subclass may compute something else.
    """
    return type_of(core_of(operation)) in _KNOWN


def infers_as_known(norm: keras.layers.Layer) -> bool:
    """Whether a layer is a batch normalization that computes `map_of` at inference: a subclass is tried on numbers.

    Its further weights, if it has any, are as it starts.
    """
    if not isinstance(norm, keras.layers.BatchNormalization):
        return False
    return is_known(norm) or all(_computes_its_map(norm, shape) for shape in ((8, 5), (2, 3, 4, 5)))


def _computes_its_map(norm: keras.layers.BatchNormalization, shape: tuple[int, ...]) -> bool:
    generator = np.random.default_rng(0)
    config = {**constructor_arguments(norm), "axis": -1, "dtype": "float32"}
    twin: Any = make(LayerSpec(type(norm), config))
    twin.build(shape)
    for variable in (twin.gamma, twin.beta, twin.moving_mean):
        if variable is not None:
            _keras.set_value(variable, generator.normal(size=shape[-1:]))
    _keras.set_value(twin.moving_variance, np.exp(generator.normal(size=shape[-1:])))
    inputs = 10 * generator.normal(size=shape)
    scale, shift = map_of(twin)
    outputs = array_of(twin(keras.ops.convert_to_tensor(inputs, "float32"), training=False))
    return np.allclose(outputs, scale * inputs + shift, rtol=1e-4, atol=1e-3)


def map_of(norm: keras.layers.BatchNormalization) -> ChannelMap:
    """What a batch normalization computes at inference."""
    mean, variance = array_of(norm.moving_mean), array_of(norm.moving_variance)
    gamma, beta = (None if weight is None else array_of(weight) for weight in (norm.gamma, norm.beta))
    return map_from(mean, variance, norm.epsilon, gamma, beta)


def map_from(mean: Array, variance: Array, epsilon: float, gamma: Array | None, beta: Array | None) -> ChannelMap:
    """The map of given statistics and weights; `None` for a weight that the layer does without."""
    with np.errstate(all="ignore"):  # what is not finite is found by asking
        scale = (1.0 if gamma is None else gamma) / np.sqrt(variance + epsilon)
        return ChannelMap(scale, (0.0 if beta is None else beta) - mean * scale)


def weights_for(wanted: ChannelMap, mean: Any, variance: Any, epsilon: float) -> tuple[Any, Any]:
    """Gamma and beta with which a batch normalization of these statistics computes a map."""
    return wanted.scale * np.sqrt(variance + epsilon), wanted.shift + mean * wanted.scale


def identity_weights(norm: keras.layers.BatchNormalization, bias: keras.Variable | None) -> Values:
    """The weights with which a batch normalization adds `bias` and does nothing else, at inference.

    Raises:
        OptionError: if it has none.
    """
    variance = max(1.0 - norm.epsilon, 0.0)
    gamma, _ = weights_for(_UNCHANGED, 0.0, variance, norm.epsilon)
    if not norm.scale and not math.isclose(gamma, 1.0):
        raise OptionError(
            f"Option norm has scale=False and epsilon={norm.epsilon}, so it cannot start as the identity; "
            "use an epsilon below 1, scale=True, or preserve=False."
        )
    return {
        "gamma": lambda: float(gamma),
        "beta": lambda: 0.0 if bias is None else bias,
        "moving_mean": lambda: 0.0,
        "moving_variance": lambda: variance,
    }
