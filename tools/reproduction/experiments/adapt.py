"""Statistics of the target domain undo a change of contrast or brightness; a few examples may cost more than they gain.

Three convolutions with batch normalization, trained on scikit-learn's digits. The test part then comes as
another camera would give it. `kerasbn.adapted` has examples of the same kind from the validation part, without
their labels: all of them, or 16 or 4, by themselves or with the share n / (n + 16) for n of them (`blend`).
Blended, few examples do next to no harm where nothing has changed, and little good where much has. Inverted
digits are not what statistics can mend. "Lopsided" are examples of two of the ten classes: their statistics are
those of the classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
import numpy as np

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget
from reproduction.data import Array, Part
from reproduction.intervals import mean
from reproduction.networks import normalized_convolutions
from reproduction.report import Panel, Report, banded, percent

EPOCHS = 15
NOISE = np.random.default_rng(7)
DOMAINS: dict[str, Callable[[Array], Array]] = {
    "as trained": lambda x: x,
    "contrast, 0.35 x + 0.5": lambda x: 0.35 * x + 0.5,
    "brightness, x + 0.5": lambda x: x + 0.5,
    "noise, 0.3": lambda x: x + NOISE.normal(0, 0.3, x.shape).astype("float32"),
    "inverted, 1 - x": lambda x: 1 - x,
}
FEW = (4, 16)
PRIOR = 16
"""How many examples the model's own statistics count for."""


def run(budget: Budget) -> Report:
    """Try it."""
    digits = data.digit_images()
    found: dict[str, dict[str, list[float]]] = {name: {} for name in DOMAINS}
    for seed in range(budget.seeds):
        model = _trained(seed, digits.train, 1 if budget.quick else EPOCHS)
        for name, change in DOMAINS.items():
            for way, accuracy in _accuracies(model, change, digits.validation, digits.test):
                found[name].setdefault(way, []).append(accuracy)
    ways = list(found["as trained"])
    rows = [(name, *(mean(by_way[way]).text(percent) for way in ways)) for name, by_way in found.items()]
    table = Table(
        "Test accuracy, %",
        ("inputs", *ways),
        tuple(rows),
        f"Mean of {budget.seeds} seeds with a t interval; the same trained networks throughout.",
    )
    lines = [banded(name, range(len(ways)), [mean(by_way[way]) for way in ways]) for name, by_way in found.items()]
    return Report([table], [Panel("digits, three convolutions", "column of the table", "test accuracy", lines)])


def _trained(seed: int, train: Part, epochs: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = normalized_convolutions()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, 0.9), loss, metrics=["accuracy"])
    model.fit(*train, epochs=epochs, verbose=0)
    return kerasbn.calibrate(model, train[0])


def _accuracies(
    model: keras.Model, change: Callable[[Array], Array], examples: Part, test: Part
) -> Iterator[tuple[str, float]]:
    """The accuracy on changed inputs, in each way to go about it."""
    target = change(examples[0])
    lopsided = target[np.isin(examples[1], (0, 1))]
    ways = {
        "as it is": contextlib.nullcontext(),
        f"adapted to {len(target)}": kerasbn.adapted(model, target),
        **{f"adapted to {few}": kerasbn.adapted(model, target[:few]) for few in reversed(FEW)},
        **{
            f"to {few}, blended": kerasbn.adapted(model, target[:few], blend=few / (few + PRIOR))
            for few in reversed(FEW)
        },
        f"adapted to {len(lopsided)}, lopsided": kerasbn.adapted(model, lopsided),
    }
    for name, way in ways.items():
        with way:
            yield name, model.evaluate(change(test[0]), test[1], verbose=0)[1]
