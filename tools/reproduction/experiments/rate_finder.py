"""`kerasbn.find_learning_rate` suggests a rate within a factor of 3 of the best of a grid.

Five networks with plain SGD: the rate that it suggests for each seed, and the rate of a grid that
gives the best validation accuracy; then the test accuracy at the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, sweep, train
from reproduction.intervals import mean, median
from reproduction.networks import convolutions, dense, from_seed, rewritten
from reproduction.report import Line, Panel, Report, percent

RATES = tuple(float(rate) for rate in 10 ** np.arange(-2.5, 1.1, 0.25))
FACTOR = 3
NETWORKS: Mapping[str, tuple[Callable[[], keras.Model], Callable[[], data.Dataset], bool, int]] = {
    "3 x 100 sigmoid": (lambda: dense(3, "sigmoid"), data.digits, False, 1000),
    "3 x 100 sigmoid, BN": (lambda: dense(3, "sigmoid"), data.digits, True, 300),
    "6 x 100 ReLU": (lambda: dense(6, "relu"), data.digits, False, 300),
    "3 convolutions, ReLU": (lambda: convolutions("relu"), data.signals, False, 300),
    "3 convolutions, ReLU, BN": (lambda: convolutions("relu"), data.signals, True, 300),
}
"""What builds it, what loads its data, whether it gets BN, and the steps by which it has learnt something."""


def run(budget: Budget) -> Report:
    """Try it."""
    rows, lines = [], []
    for name, (build, load, normalized, enough) in NETWORKS.items():
        make = rewritten(from_seed(build)) if normalized else from_seed(build)
        task = Task(load(), budget.steps(enough), every=20)
        trainer = task.trainer(make)
        scores = sweep(Candidate(name, make, RATES), trainer, task, budget)
        best = max(scores, key=lambda rate: scores[rate])
        range_test = 10 if budget.quick else 400
        suggestions = [
            kerasbn.find_learning_rate(make(seed), task.data.train, steps=range_test, batch_size=60).suggestion
            for seed in range(budget.seeds)
        ]
        at_best = train(make, best, trainer, task, range(budget.seeds))
        at_suggestion = [train(make, rate, trainer, task, [seed])[0] for seed, rate in enumerate(suggestions)]
        within = sum(1 / FACTOR <= rate / best <= FACTOR for rate in suggestions)
        rows.append(
            (
                name,
                str(task.steps),
                f"{best:.2g}",
                median(suggestions).text("{:.2g}".format),
                f"{within}/{len(suggestions)}",
                *(mean([float(one.test[-1]) for one in runs]).text(percent) for runs in (at_best, at_suggestion)),
            )
        )
        lines.append(Line(name, list(scores), list(scores.values())))
    table = Table(
        "Suggestions",
        (
            "network",
            "steps",
            "grid's best",
            "suggestion",
            f"within {FACTOR}",
            "accuracy at the best, %",
            "at the suggestion, %",
        ),
        tuple(rows),
        f"{budget.seeds} seeds: the median suggestion with a bootstrap interval, the mean test accuracy after "
        "these steps with a t interval. The grid has four rates a decade.",
    )
    return Report([table], [Panel("The grid", "learning rate", "validation accuracy", lines, log="x")])
