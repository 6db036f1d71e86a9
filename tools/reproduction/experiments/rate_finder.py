"""`kerasbn.find_learning_rate` suggests rates that vary by a factor of about 2 from seed to seed.

Five networks with plain SGD: the rates of a grid that give the best validation accuracy, and the four suggestions of a
range test of 100 steps for each seed; then the test accuracy at the best rate and at the default, `"minimum"`.

How near a suggestion is to the best rate depends on the network. Where the loss stands still for long before anything
is learned, as with sigmoid, 100 steps show little of what 300 or 1000 can bear, and the suggestions are far too low.
Where the loss did not diverge, there is no `"slide"`, and `"minimum"` stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, sweep, train
from reproduction.intervals import mean
from reproduction.networks import convolutions, dense, from_seed, rewritten
from reproduction.report import Line, Panel, Report, percent

RATES = tuple(float(rate) for rate in 10 ** np.arange(-2.5, 1.1, 0.25))
NAMES = ("minimum", "steep", "valley", "slide")
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
    suggested, accuracies, lines = [], [], []
    for name, (build, load, normalized, enough) in NETWORKS.items():
        make = rewritten(from_seed(build)) if normalized else from_seed(build)
        task = Task(load(), budget.steps(enough), every=20)
        trainer = task.trainer(make)
        candidate = Candidate(name, make, RATES)
        scores = sweep(candidate, trainer, task, budget)
        best = max(scores, key=lambda rate: scores[rate])
        steps = 10 if budget.quick else 100
        curves = [
            kerasbn.find_learning_rate(make(seed), task.data.train, steps=steps, batch_size=60)
            for seed in range(budget.seeds)
        ]
        found = {each: [curve.suggestions.get(each, curve.suggestion) for curve in curves] for each in NAMES}
        suggested.append((name, f"{best:.2g}", *(_cell(found[each], best) for each in NAMES)))
        at_best = train(candidate, best, trainer, task, range(budget.seeds))
        at_default = [train(candidate, curve.suggestion, trainer, task, [seed])[0] for seed, curve in enumerate(curves)]
        accuracies.append(
            (
                name,
                str(task.steps),
                *(mean([float(one.test[-1]) for one in runs]).text(percent) for runs in (at_best, at_default)),
            )
        )
        lines.append(Line(name, list(scores), list(scores.values())))
    tables = [
        Table(
            "Suggestions",
            ("network", "grid's best", *NAMES),
            tuple(suggested),
            f"{budget.seeds} seeds: the median; the highest by the lowest; the median by the grid's best. "
            "The grid has four rates a decade.",
        ),
        Table(
            "Accuracy",
            ("network", "steps", "at the grid's best, %", "at the default, %"),
            tuple(accuracies),
            f"{budget.seeds} seeds: the mean test accuracy after these steps with a t interval.",
        ),
    ]
    return Report(tables, [Panel("The grid", "learning rate", "validation accuracy", lines, log="x")])


def _cell(rates: Sequence[float], best: float) -> str:
    middle = float(np.median(rates))
    return f"{middle:.2g}; x {max(rates) / min(rates):.1f}; {middle / best:.2g} of the best"
