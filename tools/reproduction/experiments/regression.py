"""In regression on a smooth function BN costs accuracy, and freezing its statistics early gives it back.

Three layers of 64 ReLUs, Adam, batches of 60, 16 epochs: a smooth function of six numbers without noise, and Friedman's
first function of ten, with noise. As it is; `kerasbn.rewrite` by default; and that with
`kerasbn.freeze(model, what="statistics")` after some of the epochs, from where on each example is normalized by what
does not depend on the others in its batch. Each at the best of its rates.
"""

from __future__ import annotations

import dataclasses

import click
import keras
import numpy as np
from keras import layers

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import FIRST_SWEEP_SEED, Budget
from reproduction.data import Dataset, Part
from reproduction.intervals import mean, verdict
from reproduction.networks import Make, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent

RATES = (0.001, 0.003, 0.01, 0.03)
EPOCHS, BATCH = 16, 60
FROZEN_AFTER = (12, 8, 4)


@dataclasses.dataclass(frozen=True)
class _Course:
    """How a network is trained.

    Attributes:
        make: What makes it from a seed.
        epochs: How many epochs.
        frozen_after: After how many of them its statistics are frozen. `None`: never.
    """

    make: Make
    epochs: int
    frozen_after: int | None = None

    def trained(self, functions: Dataset, rate: float, seed: int) -> keras.Model:
        model = self.make(seed)
        model.optimizer.learning_rate = rate
        first = self.epochs if self.frozen_after is None else self.frozen_after
        model.fit(*functions.train, batch_size=BATCH, epochs=first, verbose=0)
        if first < self.epochs:
            kerasbn.freeze(model, what="statistics")
            model.fit(*functions.train, batch_size=BATCH, initial_epoch=first, epochs=self.epochs, verbose=0)
        return model


def run(budget: Budget) -> Report:
    """Try it."""
    functions = {"smooth function": data.smooth_function(), "Friedman's, with noise": data.noisy_function()}
    epochs, after = (2, (1,)) if budget.quick else (EPOCHS, FROZEN_AFTER)
    tables, lines = [], []
    for title, function in functions.items():
        plain = from_seed(lambda function=function: _network(function.shape), "Adam", keras.losses.MeanSquaredError)
        courses = {"no BN": _Course(plain, epochs), "kerasbn": _Course(rewritten(plain), epochs)} | {
            f"frozen after {each} of {epochs} epochs": _Course(rewritten(plain), epochs, each) for each in after
        }
        found = {name: _scores(course, function, budget, name) for name, course in courses.items()}
        none = found["no BN"][1]
        rows = [
            (name, f"{rate:g}", mean(scores).text(percent), "-" if scores is none else verdict(none, scores))
            for name, (rate, scores) in found.items()
        ]
        tables.append(
            Table(
                f"{title[0].upper()}{title[1:]}: R squared on the test part, %",
                ("network", "learning rate", "R squared, %", "against no BN"),
                tuple(rows),
                f"Mean of {budget.seeds} seeds with a t interval; the rate is the best of "
                f"{', '.join(f'{rate:g}' for rate in RATES)}. Better and worse by a Welch test at 5 %.",
            )
        )
        lines.append(banded(title, range(len(found)), [mean(scores) for _, scores in found.values()]))
    return Report(tables, [Panel("By network", "network", "R squared", lines, names=list(found))])


def _scores(course: _Course, function: Dataset, budget: Budget, name: str) -> tuple[float, list[float]]:
    """The best rate, and the scores of the seeds at it."""
    seeds = range(FIRST_SWEEP_SEED, FIRST_SWEEP_SEED + budget.sweep_seeds)
    swept = {
        rate: float(np.mean([_r_squared(course.trained(function, rate, seed), function.validation) for seed in seeds]))
        for rate in budget.rates(RATES)
    }
    rate = max(swept, key=lambda each: swept[each])
    scores = [_r_squared(course.trained(function, rate, seed), function.test) for seed in range(budget.seeds)]
    click.echo(f"{name} at {rate:g}: {mean(scores).text(percent)}", err=True)
    return rate, scores


def _r_squared(model: keras.Model, part: Part) -> float:
    inputs, values = part
    return 1 - float(np.mean((model.predict(inputs, verbose=0) - values) ** 2) / np.var(values))


def _network(shape: tuple[int, ...]) -> keras.Model:
    model = keras.Sequential([keras.Input(shape)])
    for _ in range(3):
        model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(1))
    return model
