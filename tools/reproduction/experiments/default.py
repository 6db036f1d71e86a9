"""`kerasbn.rewrite(model)` makes 11 of 32 networks better at their best rates, one worse; five seeds
tell no difference in 20.

Small networks of many kinds on scikit-learn's digits, signals like those of MNIST-1D and a smooth function of six
numbers, with SGD and with Adam, as they are and rewritten by default, 400 steps in batches of 60. Better and worse are
where a Welch test at 5 % tells the two apart. The score is accuracy, for the autoencoder and the function R squared.
LSTM and attention are no different at all: they get no BN by default. The function is worse by being
normalized with each batch's own statistics, which can be [frozen early](regression.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import click
import keras
import numpy as np
from keras import layers, ops

from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.data import Dataset
from reproduction.intervals import mean, verdict
from reproduction.networks import dense, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent
from reproduction.training import Score, accuracy

RATES: Mapping[str, tuple[float, ...]] = {
    "SGD": (0.01, 0.03, 0.1, 0.3, 1),
    "Adam": (0.0003, 0.001, 0.003, 0.01, 0.03),
}


def run(budget: Budget) -> Report:
    """Try it."""
    rows, found = [], []
    for kind, (build, load, loss, score) in list(_kinds().items())[: 1 if budget.quick else None]:
        task = Task(load(), budget.steps(400), every=budget.steps(100), measure=score)
        for optimizer, rates in RATES.items():
            plain = from_seed(build, optimizer, loss)
            candidates = [Candidate("as it is", plain, rates), Candidate("rewritten", rewritten(plain), rates)]
            results = compare(candidates, task, budget)
            scores = [result.last for result in results]
            shown = (f"{mean(result.last).text(percent)} ({result.rate:g})" for result in results)
            rows.append((kind, optimizer, *shown, verdict(*scores)))
            click.echo(" | ".join(rows[-1]), err=True)
            found.append([mean(each) for each in scores])
    counted = Counter(row[-1] for row in rows)
    table = Table(
        "In the end",
        ("network", "optimizer", "as it is, %", "rewritten, %", "rewritten is"),
        tuple(rows),
        f"Mean of {budget.seeds} seeds with a t interval; in brackets the rate, the best of "
        f"{', '.join(f'{rate:g}' for rate in RATES['SGD'])} with SGD and of "
        f"{', '.join(f'{rate:g}' for rate in RATES['Adam'])} with Adam. Better: {counted['better']}, the same: "
        f"{counted['the same']}, worse: {counted['worse']}.",
    )
    numbers = range(len(rows))
    lines = [
        banded(name, numbers, [each[index] for each in found]) for index, name in enumerate(("as it is", "rewritten"))
    ]
    names = [f"{kind}, {optimizer}" for kind, optimizer, *_ in rows]
    panel = Panel("By network and optimizer", "network", "test score", lines, names=names)
    return Report([table], [panel])


def _r_squared(targets: Any, outputs: Any) -> Any:
    """Its mean over the examples is R squared, about."""
    variance = ops.mean(ops.var(targets, axis=0))
    return 1 - ops.mean((targets - outputs) ** 2, axis=-1) / variance


def _kinds() -> dict[str, tuple[Callable[[], keras.Model], Callable[[], Dataset], Any, Score]]:
    mse = keras.losses.MeanSquaredError
    classes: tuple[Any, Score] = (None, accuracy)
    values: tuple[Any, Score] = (mse, _r_squared)
    return {
        **{
            f"LeNet, {name}": (lambda name=name: _lenet(name), data.digit_images, *classes)
            for name in ("relu", "tanh", "sigmoid")
        },
        "VGG, Dropout": (_vgg, data.digit_images, *classes),
        "ResNet": (_resnet, data.digit_images, *classes),
        "MLP of 5, relu": (lambda: dense(5, "relu"), data.digits, *classes),
        "MLP of 5, tanh": (lambda: dense(5, "tanh"), data.digits, *classes),
        "MLP of 12, relu": (lambda: dense(12, "relu"), data.digits, *classes),
        "MLP of 3, Dropout": (_dropping, data.digits, *classes),
        "convolutions, gelu": (lambda: _convolutions("gelu"), data.signals, *classes),
        "convolutions, gated": (_gated, data.signals, *classes),
        "LSTM": (_lstm, data.signals, *classes),
        "attention": (_attention, data.digit_images, *classes),
        "table, raw scales": (lambda: dense(2, "relu"), _raw, *classes),
        "autoencoder": (_autoencoder, _copied, *values),
        "smooth function": (_regression, data.smooth_function, *values),
    }


def _lenet(activation: str) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 5, padding="same", activation=activation),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 3, activation=activation),
            layers.Flatten(),
            layers.Dense(120, activation=activation),
            layers.Dense(84, activation=activation),
            layers.Dense(10),
        ]
    )


def _vgg() -> keras.Model:
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for width in (16, 32):
        for _ in range(2):
            model.add(layers.Conv2D(width, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
        model.add(layers.Dropout(0.25))
    for layer in (layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dropout(0.5), layers.Dense(10)):
        model.add(layer)
    return model


def _resnet() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    for _ in range(3):
        y = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
        x = layers.ReLU()(x + layers.Conv2D(16, 3, padding="same")(y))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def _dropping() -> keras.Model:
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(3):
        model.add(layers.Dense(100, activation="relu"))
        model.add(layers.Dropout(0.3))
    model.add(layers.Dense(10))
    return model


def _convolutions(activation: str) -> keras.Model:
    model = keras.Sequential([keras.Input((40, 1))])
    for size in (5, 3, 3):
        model.add(layers.Conv1D(24, size, strides=2, padding="same", activation=activation))
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    return model


def _gated() -> keras.Model:
    x = inputs = keras.Input((40, 1))
    for _ in range(3):
        x = layers.Conv1D(24, 3, strides=2, padding="same", activation="silu")(x)
        gate = layers.Dense(24, activation="sigmoid")(layers.GlobalAveragePooling1D(keepdims=True)(x))
        x = layers.Multiply()([x, gate])
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


def _lstm() -> keras.Model:
    return keras.Sequential([keras.Input((40, 1)), layers.LSTM(32), layers.Dense(10)])


def _attention() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = layers.Dense(32)(layers.Reshape((8, 8))(inputs))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 8)(y, y)
        y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(32)(y)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


def _autoencoder() -> keras.Model:
    model = keras.Sequential([keras.Input((64,))])
    for width in (48, 12, 48):
        model.add(layers.Dense(width, activation="relu"))
    model.add(layers.Dense(64))
    return model


def _regression() -> keras.Model:
    model = keras.Sequential([keras.Input((6,))])
    for _ in range(3):
        model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(1))
    return model


def _raw() -> Dataset:
    """Each of the 64 numbers of the digits in a unit of its own."""
    units = 10.0 ** np.random.default_rng(0).uniform(-2, 2, 64)
    return data.digits().mapped(lambda inputs: (inputs * units).astype("float32"))


def _copied() -> Dataset:
    """The digits, which are to come out as they went in."""
    digits = data.digits()
    return Dataset(*((inputs, inputs) for inputs, _ in (digits.train, digits.validation, digits.test)))
