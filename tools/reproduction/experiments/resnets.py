"""With BN ResNets of 20, 32 and 56 layers train, kerasbn's placement as well as the authors'; without it the one of
20 layers alone does, at these rates.

He et al. (2016, section 4.2) on digits of 28x28 pixels: three groups of 16, 32 and 64 channels, SGD with momentum 0.9,
batches of 64, digits moved by up to two pixels, shortcuts without weights. "kerasbn" is `kerasbn.rewrite` of the
network without BN; "the authors'" is built with a BN behind each convolution. Each at the best of its rates, which one
seed chose. Without BN the lowest of them is the best, so that a lower one may be better still.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import keras
import numpy as np
from keras import layers

from reporting import Table
from reproduction import data
from reproduction.comparison import FIRST_SWEEP_SEED, Budget
from reproduction.intervals import mean
from reproduction.networks import Make, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent
from reproduction.trained import Trained
from reproduction.training import Trainer

DEPTHS = (20, 32, 56)
RATES = (0.003, 0.01, 0.03, 0.1)
STEPS, EVERY, BATCH = 1500, 100, 64


def run(budget: Budget) -> Report:
    """Try it."""
    digits = data.large_digit_images(budget.mnist)
    steps, every = budget.steps(STEPS), budget.steps(EVERY)
    rows, panels = [], []
    for depth in DEPTHS[:1] if budget.quick else DEPTHS:
        lines = []
        for name, make in _networks(depth, digits.shape).items():
            trained = Trained(
                f"{depth} layers, {name}",
                make,
                lambda model: Trainer(model, digits, every, BATCH, shift=digits.shape[0] // 14),
                steps,
                budget.store,
            )
            swept = {rate: float(trained.run(FIRST_SWEEP_SEED, rate).validation[-1]) for rate in budget.rates(RATES)}
            rate = max(swept, key=lambda each: swept[each])
            found = [trained.run(seed, rate) for seed in range(budget.seeds)]
            shown = " ".join(f"{rate:g}: {percent(score)}" for rate, score in swept.items())
            final = mean([float(one.test[-1]) for one in found]).text(percent)
            rows.append((f"{depth}", name, f"{rate:g}", final, shown))
            click.echo(" | ".join(rows[-1]), err=True)
            seen = [mean(column) for column in np.transpose([one.test for one in found])]
            lines.append(banded(name, [every * (number + 1) for number in range(len(seen))], seen))
        panels.append(Panel(f"{depth} layers", "steps", "test accuracy", lines))
    table = Table(
        "In the end",
        ("layers", "network", "learning rate", "test accuracy, %", "validation accuracy by rate, %"),
        tuple(rows),
        f"After {steps} steps, mean of {budget.seeds} seeds with a t interval; {len(digits.train[1]):,} digits to "
        f"train on, {len(digits.test[1]):,} to test on.",
    )
    return Report([table], panels)


def _networks(depth: int, shape: tuple[int, ...]) -> Mapping[str, Make]:
    sgd = {"class_name": "SGD", "config": {"momentum": 0.9}}
    plain = from_seed(lambda: _resnet(depth, shape, normalized=False), sgd)
    return {
        "no BN": plain,
        "kerasbn": rewritten(plain),
        "the authors'": from_seed(lambda: _resnet(depth, shape, normalized=True), sgd),
    }


def _resnet(depth: int, shape: tuple[int, ...], *, normalized: bool) -> keras.Model:
    def conv(x: Any, width: int, strides: int = 1) -> Any:
        kind = layers.Conv2D(width, 3, strides, "same", use_bias=not normalized, kernel_initializer="he_normal")
        x = kind(x)
        return layers.BatchNormalization(momentum=0.95)(x) if normalized else x

    inputs = keras.Input(shape)
    x = layers.ReLU()(conv(inputs, 16))
    for group, width in enumerate((16, 32, 64)):
        for number in range((depth - 2) // 6):
            strides = 2 if group and not number else 1
            y = conv(layers.ReLU()(conv(x, width, strides)), width)
            if strides == 2:
                x = layers.Concatenate()([layers.AveragePooling2D(2)(x), layers.AveragePooling2D(2)(x) * 0.0])
            x = layers.ReLU()(x + y)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
