"""The small Inception of the reproductions: the blocks of Ioffe and Szegedy (2015, figure 5) for images of digits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

DECAY = 0.5
"""What becomes of its learning rate in half of the steps."""
HIDDEN = "auxiliary_hidden"
"""The name of the hidden layer of its auxiliary head."""


@keras.saving.register_keras_serializable("reproduction")
class LRN(layers.Layer):
    """Local response normalization, which Keras has no layer for: Krizhevsky et al. (2012, section 3.3).

    Its radius, bias, alpha and beta are TensorFlow's defaults: 5, 1, 1 and 0.5.
    """

    def call(self, inputs: Any) -> Any:
        """Normalize."""
        channels = np.arange(inputs.shape[-1])
        near = np.abs(channels - channels[:, None]) <= 5
        around = ops.matmul(ops.square(inputs), near.astype("float32"))
        return inputs / ops.sqrt(1 + around)


def small_inception(
    shape: tuple[int, ...], activation: str = "relu", auxiliary_dropout: float | None = 0.7
) -> keras.Model:
    """A stem, four blocks and two heads, which yield logits: "digit", and the auxiliary one behind three blocks.

    Args:
        shape: The shape of an image.
        activation: The activation.
        auxiliary_dropout: The rate of the Dropout in the auxiliary head; `None` leaves that head out.
    """
    inputs = keras.Input(shape)

    def conv(x: Any, width: int, size: int) -> Any:
        regularizer = keras.regularizers.L2(1e-4)
        kind = layers.Conv2D(width, size, padding="same", activation=activation, kernel_regularizer=regularizer)
        return kind(x)

    def block(x: Any, width: int, pool: type[layers.Layer]) -> Any:
        towers = [
            conv(x, width, 1),
            conv(conv(x, width, 1), width, 3),
            conv(conv(conv(x, width // 2, 1), width, 3), width, 3),
            conv(pool(3, strides=1, padding="same")(x), width // 2, 1),
        ]
        return layers.Concatenate()(towers)

    def auxiliary(x: Any, dropout: float) -> Any:
        x = layers.Flatten()(conv(layers.AveragePooling2D(2)(x), 16, 1))
        x = layers.Dense(64, activation=activation, name=HIDDEN)(x)
        return layers.Dense(10, name="auxiliary")(layers.Dropout(dropout)(x))

    x = LRN(name="lrn")(layers.MaxPooling2D()(conv(inputs, 24, 5)))
    x = block(x, 16, layers.AveragePooling2D)
    x = layers.MaxPooling2D()(block(x, 16, layers.MaxPooling2D))
    x = block(x, 24, layers.AveragePooling2D)
    heads = [] if auxiliary_dropout is None else [auxiliary(x, auxiliary_dropout)]
    x = layers.GlobalAveragePooling2D()(block(x, 24, layers.MaxPooling2D))
    return keras.Model(inputs, [layers.Dense(10, name="digit")(layers.Dropout(0.4)(x)), *heads])
