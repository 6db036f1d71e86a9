"""`kerasbn.compare` says what a full grid says of 6 small networks out of 6, in an eighth of its time at most.

The grid tries the model as it is, `"auto"`, `"before"` and `"after"` at six learning rates, trained to the end; its
verdict is by the same rule, on more seeds. `compare` has 3 seeds, as many steps, and finds its rates itself. Both start
from one set of weights. They agree where what `compare` calls the best is not beaten in the grid.

They name the same candidates as not beaten in all six. But no network here has a single winner: in three nothing is
shown to be better than the model as it is, in three batch normalization is, and nowhere do 3 or 5 seeds tell positions
apart.

How far a loser is behind in the end `compare` does not say: 3 x 100 sigmoids without batch normalization went after 150
steps, 86 points behind at the rates that were tried; at a rate ten times as high, which the range test does not suggest
there, the grid has them 17 points behind. Candidates that stay end within a point and a half of the grid's.

The time of the grid is that of one `fit` for each of the four candidates, times six rates and three seeds, as many as
`compare` has. What is counted for `compare` is all of it: compiling, range tests, training. Both ran on one core.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
import keras
import numpy as np

import kerasbn
from kerasbn.comparison.candidates import NAMED
from kerasbn.comparison.significance import differences
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Task
from reproduction.networks import Make, dense, rewritten
from reproduction.report import Line, Panel, Report, percent

STEPS = 600
SEEDS = 3
BATCH = 60
SGD, ADAM = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to place batch normalization in.

    Attributes:
        build: Makes it, uncompiled.
        load: Loads its data.
        optimizer: The optimizer that it is compiled with, at a rate as people write it.
        rates: Those of the grid.
    """

    build: Callable[[], keras.Model]
    load: Callable[[], data.Dataset]
    optimizer: Callable[[], keras.optimizers.Optimizer]
    rates: Sequence[float]


def _convolutions(activation: str, dropout: float = 0.0) -> keras.Model:
    layers = [keras.Input((8, 8, 1))]
    for width in (16, 32):
        layers.append(keras.layers.Conv2D(width, 3, padding="same", activation=activation))
        layers.append(keras.layers.MaxPooling2D())
    layers += [keras.layers.Flatten(), keras.layers.Dense(64, activation=activation)]
    return keras.Sequential([*layers, *([keras.layers.Dropout(dropout)] if dropout else ()), keras.layers.Dense(10)])


NETWORKS: Mapping[str, Network] = {
    "3 x 100 sigmoid, SGD": Network(lambda: dense(3, "sigmoid"), data.digits, lambda: keras.optimizers.SGD(0.1), SGD),
    "6 x 100 tanh, SGD": Network(lambda: dense(6, "tanh"), data.digits, lambda: keras.optimizers.SGD(0.01), SGD),
    "8 x 100 ReLU, SGD": Network(lambda: dense(8, "relu"), data.digits, lambda: keras.optimizers.SGD(0.01), SGD),
    "convolutions, sigmoid, SGD": Network(
        lambda: _convolutions("sigmoid"), data.digit_images, lambda: keras.optimizers.SGD(0.1), SGD
    ),
    "convolutions, ReLU, Dropout, Adam": Network(
        lambda: _convolutions("relu", 0.5), data.digit_images, lambda: keras.optimizers.Adam(0.001), ADAM
    ),
    "1 x 100 ReLU, Adam": Network(lambda: dense(1, "relu"), data.digits, lambda: keras.optimizers.Adam(0.001), ADAM),
}


def run(budget: Budget) -> Report:
    """Try it."""
    rows, scores, panels = [], [], []
    for name, network in list(NETWORKS.items())[:1] if budget.quick else NETWORKS.items():
        steps = budget.steps(STEPS)
        task = Task(network.load(), steps, every=min(20, steps))
        begin = time.perf_counter()
        comparison = kerasbn.compare(
            _make(network)(0),
            task.data.train,
            validation_data=task.data.validation,
            budget=steps,
            seeds=SEEDS,
            batch_size=BATCH,
        )
        seconds = time.perf_counter() - begin
        makes = {row.candidate: rewritten(_make(network), **NAMED[row.candidate]) for row in comparison.rows}
        grid = {each: _grid(make, task, network, budget) for each, make in makes.items()}
        level = _level(grid)
        best = next(row.candidate for row in comparison.rows if not row.is_beaten)
        of_fit = [(1 + len(row.same)) * _seconds_of_fit(makes[row.candidate], task) for row in comparison.rows]
        takes = sum(of_fit) * len(network.rates) * SEEDS
        agree = "yes" if best in level else "no"
        rows.append((name, ", ".join(level), comparison.verdict, agree, f"{seconds:.0f}", f"{takes:.0f}"))
        click.echo(f"{' | '.join(rows[-1])}\n{comparison}", err=True)
        for row in comparison.rows:
            rate, found = _best(grid[row.candidate])
            shown = "" if row.rate is None else f"{row.rate:.2g}"
            cells = f"{rate:.2g}", percent(float(np.mean(found))), shown, percent(row.median), str(row.steps)
            scores.append((name, " = ".join((row.candidate, *row.same)), *cells))
        lines = [
            Line(each, list(found), [float(np.mean(one)) for one in found.values()]) for each, found in grid.items()
        ]
        panels.append(Panel(name, "learning rate", "validation accuracy", lines, log="x"))
    return Report(
        [
            Table(
                "Verdicts",
                ("network", "not beaten in the grid", "compare", "agree", "compare, s", "grid, s"),
                tuple(rows),
                f"The grid's verdict is on {budget.seeds} seeds, at each candidate's best rate.",
            ),
            Table(
                "Scores",
                ("network", "candidate", "grid: rate", "accuracy, %", "compare: rate", "accuracy, %", "steps"),
                tuple(scores),
                f"Validation accuracy: of the grid the mean of {budget.seeds} seeds after {STEPS} steps, of compare "
                f"the median of {SEEDS} seeds when the candidate was looked at last.",
            ),
        ],
        panels,
    )


def _make(network: Network) -> Make:
    """The network with the same weights for each seed: what varies is the order of the batches, and Dropout."""

    def make(seed: int) -> keras.Model:
        keras.utils.set_random_seed(0)
        model = network.build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(network.optimizer(), loss, metrics=["accuracy"])
        return model

    return make


def _grid(make: Make, task: Task, network: Network, budget: Budget) -> dict[float, list[float]]:
    """The validation accuracy in the end, seed by seed, at each rate."""
    trainer, start = task.trainer(make), make(0)
    return {
        rate: [float(trainer.run(start, rate, seed, task.steps).validation[-1]) for seed in range(budget.seeds)]
        for rate in budget.rates(network.rates)
    }


def _best(grid: Mapping[float, Sequence[float]]) -> tuple[float, Sequence[float]]:
    rate = max(grid, key=lambda rate: np.mean(grid[rate]))
    return rate, grid[rate]


def _level(grid: Mapping[str, Mapping[float, Sequence[float]]]) -> list[str]:
    """The candidates that none is shown to beat."""
    table = np.array([_best(found)[1] for found in grid.values()])
    return [name for name, found in zip(grid, differences(table, STEPS), strict=True) if not found.is_shown]


def _seconds_of_fit(make: Make, task: Task) -> float:
    """How long `fit` takes for the steps of a run, once it is compiled, and `evaluate` behind it."""
    model = make(0)
    inputs, labels = task.data.train
    passes = -(-task.steps * BATCH // len(labels))
    arguments: dict[str, Any] = {"batch_size": BATCH, "verbose": 0}
    model.fit(inputs, labels, **arguments)
    model.evaluate(*task.data.validation, verbose=0)
    begin = time.perf_counter()
    model.fit(inputs, labels, epochs=passes, **arguments)
    model.evaluate(*task.data.validation, verbose=0)
    return time.perf_counter() - begin
