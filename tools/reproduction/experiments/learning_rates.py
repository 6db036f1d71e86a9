"""BN bears learning rates that are too high for the network without.

Three networks with plain SGD: the rate is raised from the best one of the network without BN, by
5 and 30 as in the paper (Ioffe and Szegedy, 2015, section 4.2.2), and beyond. A rate counts as
stable if the network ends no more than a tenth below its best mean accuracy over all these rates,
from every single seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np

from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, sweep, train
from reproduction.intervals import mean
from reproduction.networks import convolutions, dense, from_seed, quick_norm, rewritten
from reproduction.report import Panel, Report, Table, banded, percent

RATES = (0.1, 0.3, 1, 3, 10)
FACTORS = (0.2, 1, 2, 5, 10, 30, 100)
SHARE = 0.9
NETWORKS: Mapping[str, tuple[Callable[[], keras.Model], Callable[[], data.Dataset]]] = {
    "6 x 100 ReLU, digits": (lambda: dense(6, "relu"), data.digits),
    "3 x 100 sigmoid, digits": (lambda: dense(3, "sigmoid"), data.digits),
    "3 convolutions, ReLU, signals": (lambda: convolutions("relu"), data.signals),
}


def run(budget: Budget) -> Report:
    """Try it."""
    tables, panels, largest = [], [], []
    for title, (build, load) in NETWORKS.items():
        task = Task(load(), budget.steps(300), every=20)
        plain = from_seed(build)
        scores = sweep(Candidate("no BN", plain, RATES), task.trainer(plain), task, budget)
        best = max(scores, key=lambda rate: scores[rate])
        rates = {factor: factor * best for factor in budget.rates(FACTORS)}
        found = {}
        for name, make in {"no BN": plain, "kerasbn, momentum 0.9": rewritten(plain, norm=quick_norm())}.items():
            trainer = task.trainer(make)
            runs = [train(make, rate, trainer, task, range(budget.seeds)) for rate in rates.values()]
            found[name] = [[float(one.test[-1]) for one in ones] for ones in runs]
        stable = {name: _stable(accuracies) for name, accuracies in found.items()}
        tables.append(_table(title, rates, found, stable, task))
        panels.append(_panel(title, list(rates.values()), found))
        ends = [
            max((rate for rate, holds in zip(rates.values(), flags, strict=True) if holds), default=0.0)
            for flags in stable.values()
        ]
        largest.append(
            (title, f"{best:g}", *(f"{end:g}" for end in ends), f"{ends[1] / ends[0]:.0f}" if ends[0] else "")
        )
    summary = Table(
        "The largest stable rate",
        ("network", "best rate without BN", *stable, "times as large"),
        largest,
        f"Among {', '.join(map(str, FACTORS))} times the best rate without BN; where the largest of them is stable, "
        "there may be larger ones.",
    )
    return Report([summary, *tables], panels)


def _stable(accuracies: list[list[float]]) -> list[bool]:
    best = max(np.mean(seeds) for seeds in accuracies)
    return [min(seeds) >= SHARE * best for seeds in accuracies]


def _table(
    title: str,
    rates: Mapping[float, float],
    found: Mapping[str, list[list[float]]],
    stable: Mapping[str, list[bool]],
    task: Task,
) -> Table:
    rows = []
    for number, (factor, rate) in enumerate(rates.items()):
        cells = []
        for name, accuracies in found.items():
            seeds = accuracies[number]
            cells += [mean(seeds).text(percent), percent(min(seeds)), "yes" if stable[name][number] else "no"]
        rows.append((f"x{factor:g}", f"{rate:g}", *cells))
    headings = [heading for name in found for heading in (f"{name}: accuracy, %", "worst seed", "keeps up")]
    seeds = len(next(iter(found.values()))[0])
    return Table(
        title,
        ("factor", "rate", *headings),
        rows,
        f"Test accuracy after {task.steps} steps, mean of {seeds} seeds with a t interval.",
    )


def _panel(title: str, rates: list[float], found: Mapping[str, list[list[float]]]) -> Panel:
    lines = [banded(name, rates, [mean(seeds) for seeds in accuracies]) for name, accuracies in found.items()]
    return Panel(title, "learning rate", "test accuracy", lines, log="x")
