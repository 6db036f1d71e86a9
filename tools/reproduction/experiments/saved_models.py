"""Networks that were saved without BN and rewritten train as those whose author placed BN by hand.

Three convolution nets on scikit-learn's digits as images of 8x8: plain as VGG, with branches as
Inception, with shortcuts as ResNet. Each is written without BN by `keras.Model.save`, read back
from the file and given to `kerasbn.rewrite`; beside it, the same network built with a BN behind
each convolution. All have the same first weights for a seed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
from keras import layers

import kerasbn
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.networks import Make, from_seed
from reproduction.report import Report, steps_table, sweep_panel, sweep_table

WITHOUT = (0.03, 0.1, 0.3, 1)
WITH = (0.03, 0.1, 0.3, 1)
Tensor = keras.KerasTensor
Convolve = Callable[..., Tensor]
"""A convolution with its activation, and BN between the two or not."""


def run(budget: Budget) -> Report:
    """Try it."""
    task = Task(data.digit_images(), budget.steps(600), target=0.95)
    tables, panels = [], []
    for network in (vgg_style, inception_style, residual):
        title = network.__name__.replace("_", " ")
        plain = from_seed(lambda network=network: network(plain_convolution))
        by_hand = from_seed(lambda network=network: network(normalized_convolution))
        results = compare(
            [
                Candidate("BN by hand", started_from(plain, by_hand), WITH),
                Candidate("kerasbn, from the file", from_file(plain), WITH),
                Candidate("no BN", plain, WITHOUT),
            ],
            task,
            budget,
        )
        tables += [
            steps_table(title, results, task, baseline=2),
            sweep_table(f"Rates: {title}", results, task),
        ]
        panels.append(sweep_panel(title, results, task))
    return Report(tables, panels)


def from_file(make: Make) -> Make:
    """The networks rewritten, with a file in between."""

    def made(seed: int) -> keras.Model:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            make(seed).save(path)
            return kerasbn.rewrite(keras.models.load_model(path))

    return made


def started_from(plain: Make, by_hand: Make) -> Make:
    """The networks with BN by hand, with the kernels of those without."""

    def made(seed: int) -> keras.Model:
        model, source = by_hand(seed), plain(seed)
        for layer in source.layers:
            if layer.weights:
                twin = model.get_layer(layer.name)
                twin.set_weights(layer.get_weights()[: len(twin.weights)])
        return model

    return made


def plain_convolution(x: Tensor, filters: int, size: int, name: str, activation: str | None = "relu") -> Tensor:
    """Without BN."""
    return layers.Conv2D(filters, size, padding="same", activation=activation, name=name)(x)


def normalized_convolution(x: Tensor, filters: int, size: int, name: str, activation: str | None = "relu") -> Tensor:
    """With BN before the activation, set as that which kerasbn inserts."""
    x = layers.Conv2D(filters, size, padding="same", use_bias=False, name=name)(x)
    x = kerasbn.layers.BatchNormalization(momentum=0.95, zero_debias=True)(x)
    return x if activation is None else layers.Activation(activation)(x)


def vgg_style(convolve: Convolve) -> keras.Model:
    """Pairs of convolutions and pooling."""
    inputs = x = keras.Input((8, 8, 1))
    for block, filters in enumerate((12, 24, 24), 1):
        for number in (1, 2):
            x = convolve(x, filters, 3, f"conv{block}_{number}")
        x = layers.MaxPooling2D()(x) if block < 3 else x
    return _classifier(inputs, x)


def inception_style(convolve: Convolve) -> keras.Model:
    """Branches of convolutions of several sizes, joined."""
    inputs = keras.Input((8, 8, 1))
    x = convolve(inputs, 12, 3, "stem")
    for block in (1, 2, 3):
        pooled = layers.AveragePooling2D(3, strides=1, padding="same")(x)
        branches = [
            convolve(x, 8, 1, f"mixed{block}_1x1"),
            convolve(convolve(x, 6, 1, f"mixed{block}_3x3_reduce"), 12, 3, f"mixed{block}_3x3"),
            convolve(pooled, 4, 1, f"mixed{block}_pool"),
        ]
        x = layers.Concatenate()(branches)
        x = layers.MaxPooling2D()(x) if block < 3 else x
    return _classifier(inputs, x)


def residual(convolve: Convolve) -> keras.Model:
    """Blocks of two convolutions with a shortcut around them."""
    inputs = keras.Input((8, 8, 1))
    x = convolve(inputs, 16, 3, "stem")
    for block in (1, 2, 3):
        branch = convolve(x, 16, 3, f"block{block}_1")
        branch = convolve(branch, 16, 3, f"block{block}_2", activation=None)
        x = layers.Activation("relu")(layers.Add()([x, branch]))
        x = layers.MaxPooling2D()(x) if block < 3 else x
    return _classifier(inputs, x)


def _classifier(inputs: Tensor, x: Tensor) -> keras.Model:
    return keras.Model(inputs, layers.Dense(10, name="digit")(layers.GlobalAveragePooling2D()(x)))
