"""What the tools on whole networks share: BN far from fresh, what a network computes, how far two are apart."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch normalizations of a model, in models inside as well."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def randomize(model: keras.Model) -> None:
    """Give BN weights far from fresh ones, small enough that the outputs of deep networks stay finite."""
    generator = np.random.default_rng(0)
    for layer in normalizations(model):
        layer.moving_mean.assign(generator.normal(size=layer.moving_mean.shape))
        layer.moving_variance.assign(np.exp(2 * generator.normal(size=layer.moving_variance.shape)))
        if layer.center:
            layer.beta.assign(generator.normal(size=layer.beta.shape))
        if layer.scale:
            signs = generator.choice([-1.0, 1.0], size=layer.gamma.shape)
            layer.gamma.assign(signs * np.exp(generator.normal(size=layer.gamma.shape) - 2))


def outputs(model: keras.Model, inputs: Any) -> list[Any]:
    """What a model computes at inference, flat."""
    return [keras.ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(model(inputs, training=False))]


def difference(expected: list[Any], got: list[Any]) -> float:
    """The greatest difference of any output, relative to the greatest value of that output."""
    pairs = zip(expected, got, strict=True)
    return max(float(np.max(np.abs(one - other)) / np.max(np.abs(one))) for one, other in pairs)


def verdict(model: keras.Model, result: keras.Model, inputs: Any) -> str:
    """How far a folded network is from its source, marked where that is more than rounding.

    The bound is 1e-4, or 30 times what a relative change of 1e-6 in the input does where that is more.
    """
    expected = outputs(model, inputs)
    found = difference(expected, outputs(result, inputs))
    nudged = difference(expected, outputs(model, inputs * np.float32(1 + 1e-6)))
    return f"{found:.0e}" if found <= max(1e-4, 30 * nudged) else f"**WRONG** by {found:.0e}"
