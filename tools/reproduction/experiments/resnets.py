"""With BN ResNets of 20, 32 and 56 layers train at rates of 0.003 to 0.1, kerasbn's placement as well as the authors';
without it those of 32 and 56 layers do at none of these.

He et al. (2016, section 4.2) on digits of 28x28 pixels: three groups of 16, 32 and 64 channels, SGD with momentum 0.9,
batches of 64, digits moved by up to two pixels, shortcuts without weights. "kerasbn" is `kerasbn.rewrite` of the
network without BN; "the authors'" is built with a BN behind each convolution. Each at the best of its rates, which one
seed chose. Without BN the lowest of them is the best, and a lower one better still: tried once, at 0.001, 32 layers
reached 92 % in validation. The tool tries 0.0003 to 0.01 without BN now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.networks import Make, from_seed, rewritten
from reproduction.report import Report, accuracy_panel, accuracy_table, sweep_table

DEPTHS = (20, 32, 56)
WITHOUT = "no BN"
RATES, LOWER_RATES = (0.003, 0.01, 0.03, 0.1), (0.0003, 0.001, 0.003, 0.01)
"""To choose from, with BN and without."""
STEPS, EVERY, BATCH = 1500, 100, 64


def run(budget: Budget) -> Report:
    """Try it."""
    digits = data.large_digit_images(budget.mnist)
    tables, panels = [], []
    for depth in DEPTHS[:1] if budget.quick else DEPTHS:
        task = Task(
            digits,
            budget.steps(STEPS),
            every=budget.steps(EVERY),
            batch_size=BATCH,
            shift=digits.shape[0] // 14,
            title=f"{depth} layers",
            store=budget.store,
        )
        candidates = [
            Candidate(name, make, LOWER_RATES if name == WITHOUT else RATES)
            for name, make in _networks(depth, digits.shape).items()
        ]
        results = compare(candidates, task, budget)
        tables.append(accuracy_table(task.title, results, task))
        tables.append(sweep_table(f"{task.title}: rates that were tried", results, task))
        panels.append(accuracy_panel(task.title, results, task))
    return Report(tables, panels)


def _networks(depth: int, shape: tuple[int, ...]) -> Mapping[str, Make]:
    sgd = {"class_name": "SGD", "config": {"momentum": 0.9}}
    plain = from_seed(lambda: _resnet(depth, shape, normalized=False), sgd)
    return {
        WITHOUT: plain,
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
