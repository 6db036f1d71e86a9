"""A trained network that gets BN falls back by one to seven points at first, unless BN starts from measured statistics.

Three networks without BN, trained on scikit-learn's digits for 600 steps of SGD, and then trained on for 100 steps at
the same rate: as they are; with BN, which at inference starts as the identity; with BN from a sample of the inputs,
`data=`; with that and its statistics frozen. In the last row the second is calibrated, `kerasbn.calibrate`, behind its
training. The accuracy is that of inference, so before the first step it is the same for all. The lowest one is what the
first steps cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
import keras
import numpy as np

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget
from reproduction.data import Dataset
from reproduction.intervals import mean
from reproduction.networks import dense, from_seed
from reproduction.report import Panel, Report, banded, percent
from reproduction.training import Trainer

STEPS, EVERY = 100, 5
AT = (5, 20, 100)
"""The steps after which the accuracy is reported."""
NETWORKS: Mapping[str, tuple[Callable[[], keras.Model], Callable[[], Dataset], float]] = {
    "5 x 100 ReLU": (lambda: dense(5, "relu"), data.digits, 0.1),
    "3 x 100 tanh": (lambda: dense(3, "tanh"), data.digits, 0.1),
    "3 convolutions, ReLU": (lambda: _convolutions(), data.digit_images, 0.1),
}
"""What builds it, what loads its data, and its rate."""


def _plain(model: keras.Model, sample: Any) -> keras.Model:
    return kerasbn.rewrite(model, position="none")


def _identity(model: keras.Model, sample: Any) -> keras.Model:
    return kerasbn.rewrite(model)


def _measured(model: keras.Model, sample: Any) -> keras.Model:
    return kerasbn.rewrite(model, data=sample)


def _frozen(model: keras.Model, sample: Any) -> keras.Model:
    return kerasbn.freeze(kerasbn.rewrite(model, data=sample), what="statistics").model


WAYS: Mapping[str, Callable[[keras.Model, Any], keras.Model]] = {
    "as it is": _plain,
    "BN": _identity,
    "BN, data=": _measured,
    "BN, data=, statistics frozen": _frozen,
}


def run(budget: Budget) -> Report:
    """Try it."""
    tables, panels = [], []
    steps = budget.steps(STEPS)
    reported = [each for each in AT if each <= steps]
    for title, (build, load, rate) in list(NETWORKS.items())[: 1 if budget.quick else None]:
        digits = load()
        courses: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        calibrated: list[float] = []
        for seed in range(budget.seeds):
            trained = _trained(from_seed(build)(seed), digits, rate, seed, budget)
            for way, make in WAYS.items():
                model = make(trained, digits.train[0])
                trainer = Trainer(model, digits, every=EVERY)
                before = trainer.scores()[1]
                courses[way].append([before, *map(float, trainer.run(model, rate, seed, steps).test)])
                if way == "BN":
                    kerasbn.calibrate(model, digits.train[0])
                    calibrated.append(trainer.scores()[1])
        rows = [_row(way, course, reported) for way, course in courses.items()]
        rows.append(("BN, calibrated behind", "", *[""] * (len(reported) - 1), mean(calibrated).text(percent), ""))
        for row in rows:
            click.echo(f"{title}: {' | '.join(row)}", err=True)
        tables.append(
            Table(
                title,
                ("network", "before", *(f"after {each} steps" for each in reported), "lowest"),
                tuple(rows),
                f"Test accuracy, %, at inference; mean of {budget.seeds} seeds with a t interval.",
            )
        )
        at = range(0, steps + 1, EVERY)
        lines = [banded(way, at, [mean(column) for column in np.transpose(course)]) for way, course in courses.items()]
        panels.append(Panel(title, "steps", "test accuracy", lines))
    return Report(tables, panels)


def _row(way: str, course: list[list[float]], reported: list[int]) -> tuple[str, ...]:
    at = [0, *(each // EVERY for each in reported)]
    shown = [mean([each[index] for each in course]).text(percent) for index in at]
    return (way, *shown, mean([min(each) for each in course]).text(percent))


def _trained(model: keras.Model, digits: Dataset, rate: float, seed: int, budget: Budget) -> keras.Model:
    Trainer(model, digits, every=budget.steps(600)).run(model, rate, seed, budget.steps(600))
    return model


def _convolutions() -> keras.Model:
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for width in (16, 32, 32):
        model.add(keras.layers.Conv2D(width, 3, padding="same", activation="relu"))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10))
    return model
