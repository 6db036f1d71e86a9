"""Networks by seed: compiled, and given batch normalization as a user would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

import kerasbn

Make = Callable[[int], keras.Model]
"""Makes a compiled network with the weights of a seed."""


def from_seed(
    build: Callable[[], keras.Model],
    optimizer: str | Mapping[str, Any] = "SGD",
    loss: type[keras.losses.Loss] | None = None,
) -> Make:
    """Make the network that `build` gives after `keras.utils.set_random_seed`.

    Args:
        build: What builds the network. It yields logits.
        optimizer: The name of an optimizer of Keras, or its name and arguments as Keras serializes them; its
            learning rate is set later.
        loss: The class of the loss. Defaults to `None`: cross-entropy.
    """

    def make(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = build()
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.get(optimizer), loss() if loss else cross_entropy)
        return model

    return make


def rewritten(make: Make, **options: Any) -> Make:
    """The same networks, rewritten by kerasbn."""
    return lambda seed: kerasbn.rewrite(make(seed), **options)


def dense(depth: int, activation: str, initializer: Any = "glorot_uniform", inputs: int = 64) -> keras.Model:
    """Fully connected layers of 100 units each, their activations as layers of their own, and ten classes."""
    model = keras.Sequential([keras.Input((inputs,))])
    for number in range(1, depth + 1):
        model.add(keras.layers.Dense(100, kernel_initializer=_fresh(initializer), name=f"fc{number}"))
        model.add(keras.layers.Activation(activation, name=f"{activation}{number}"))
    model.add(keras.layers.Dense(10, kernel_initializer=_fresh(initializer), name="digit"))
    return model


def convolutions(activation: str) -> keras.Model:
    """Three convolutions over signals of 40 numbers, and ten classes."""
    model = keras.Sequential([keras.Input((40, 1))])
    for size in (5, 3, 3):
        model.add(keras.layers.Conv1D(24, size, strides=2, padding="same", activation=activation))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10))
    return model


def normalized_convolutions() -> keras.Model:
    """Three convolutions over digits of 8x8 pixels, Keras's batch normalization behind each, and ten classes."""
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for width in (16, 32, 32):
        model.add(keras.layers.Conv2D(width, 3, padding="same", use_bias=False))
        model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.ReLU())
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(10))
    return model


def _fresh(initializer: Any) -> keras.initializers.Initializer:
    """An initializer draws the same numbers each time it is asked, so each layer gets one of its own."""
    return keras.initializers.get(initializer).clone()
