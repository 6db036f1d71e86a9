"""Eight layers bear no Dropout, with BN or without; with it taken out before training BN is as good as neither.

Layers of 100 ReLU units with Dropout 0.5 behind each, on scikit-learn's digits. Dropout changes the
variance of what a BN further down gets, in training and not at inference, so its moving variance
does not fit (Li et al., 2018), and the misfit grows from layer to layer. Taking the Dropout out of
the trained network changes nothing at inference; the statistics have to be measured again.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, sweep
from reproduction.intervals import mean
from reproduction.networks import from_seed, rewritten
from reproduction.report import Line, Panel, Report, percent
from reproduction.training import Trainer

DEPTHS = (4, 8)
RATES = (0.03, 0.1, 0.3, 1)
KEPT = "BN, Dropout kept"


def run(budget: Budget) -> Report:
    """Try it."""
    task = Task(data.digits(), budget.steps(400), every=20)
    tables, panels = [], []
    for depth in DEPTHS[:1] if budget.quick else DEPTHS:
        rows, lines = [], []
        for candidate in _candidates(depth):
            trainer = task.trainer(candidate.make)
            scores = sweep(candidate, trainer, task, budget)
            lines.append(Line(candidate.name, list(scores), list(scores.values())))
            rate = max(scores, key=lambda rate: scores[rate])
            seeds = [dict(_accuracies(candidate, rate, trainer, task, seed)) for seed in range(budget.seeds)]
            for name in seeds[0]:
                rows.append((name, f"{rate:g}", mean([seed[name] for seed in seeds]).text(percent)))
        tables.append(
            Table(
                f"{depth} layers",
                ("network", "learning rate", f"test accuracy, % after {task.steps} steps"),
                tuple(rows),
                f"Mean of {budget.seeds} seeds with a t interval. The rates tried: {', '.join(map(str, RATES))}. By "
                "default kerasbn strips the Dropout that feeds a BN; the last one stays.",
            )
        )
        panels.append(Panel(f"{depth} layers", "learning rate", "validation accuracy", lines, log="x"))
    return Report(tables, panels)


def network(depth: int, rate: float) -> keras.Model:
    """Fully connected layers, each with Dropout behind it."""
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(depth):
        model.add(keras.layers.Dense(100, activation="relu"))
        model.add(keras.layers.Dropout(rate))
    model.add(keras.layers.Dense(10))
    return model


def _candidates(depth: int) -> list[Candidate]:
    with_dropout = from_seed(lambda: network(depth, 0.5))
    return [
        Candidate("no BN, Dropout", with_dropout, RATES),
        Candidate("no BN, no Dropout", from_seed(lambda: network(depth, 0.0)), RATES),
        Candidate(KEPT, rewritten(with_dropout, dropout="none"), RATES),
        Candidate("BN, Dropout stripped before training", rewritten(with_dropout), RATES),
    ]


def _accuracies(
    candidate: Candidate, rate: float, trainer: Trainer, task: Task, seed: int
) -> Iterator[tuple[str, float]]:
    """The test accuracy as trained and, where Dropout was kept before a BN, of what can be made of it."""
    trained = trainer.run(candidate.make(seed), rate, seed, task.steps)
    yield candidate.name, float(trained.test[-1])
    if candidate.name == KEPT:
        stripped = kerasbn.rewrite(trainer.model, position="none", dropout="all")
        yield "the same, Dropout stripped", accuracy(stripped, task.data.test)
        kerasbn.calibrate(stripped, task.data.train[0])
        yield "the same, Dropout stripped, recalibrated", accuracy(stripped, task.data.test)


def accuracy(model: keras.Model, part: data.Part) -> float:
    """The accuracy of a model on a part of the data."""
    inputs, labels = part
    return float(np.mean(np.argmax(model(inputs, training=False), -1) == labels))
