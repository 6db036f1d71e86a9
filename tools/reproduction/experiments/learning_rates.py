"""BN ahead of the activation bears rates that are too high for the network without; behind sigmoids it does not.

Three networks with plain SGD: the rate is raised from the best one of the network without BN, by
5 and 30 as in the paper (Ioffe and Szegedy, 2015, section 4.2.2), and beyond. A rate counts as
stable if the mean accuracy that the network ends with is no more than a tenth below its best one
among these rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, accuracies, sweep
from reproduction.intervals import Estimate
from reproduction.networks import Make, convolutions, dense, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent

RATES = (0.1, 0.3, 1, 3, 10)
FACTORS = (0.2, 1, 2, 5, 10, 30, 100)
SHARE = 0.9
NETWORKS: Mapping[str, tuple[Callable[[], keras.Model], Callable[[], data.Dataset], int]] = {
    "6 x 100 ReLU, digits": (lambda: dense(6, "relu"), data.digits, 300),
    "3 convolutions, ReLU, signals": (lambda: convolutions("relu"), data.signals, 300),
    "3 x 100 sigmoid, digits": (lambda: dense(3, "sigmoid"), data.digits, 600),
}
"""What builds it, what loads its data, and how many steps it is trained."""


def run(budget: Budget) -> Report:
    """Try it."""
    tables, panels, summary = [], [], []
    for title, (build, load, steps) in NETWORKS.items():
        task = Task(load(), budget.steps(steps), every=20)
        variants = _variants(from_seed(build), "sigmoid" in title)
        plain = Candidate("no BN", variants["no BN"], RATES)
        scores = sweep(plain, task.trainer(plain.make), task, budget)
        best = max(scores, key=lambda rate: scores[rate])
        rates = {factor: factor * best for factor in budget.rates(FACTORS)}
        tried = [Candidate(name, make, [*rates.values()]) for name, make in variants.items()]
        found = {candidate.name: accuracies(candidate, task, budget) for candidate in tried}
        limits = {name: list(rates.values())[_last_stable(accuracies)] for name, accuracies in found.items()}
        for name, limit in limits.items():
            summary.append((title, name, f"{best:g}", f"{limit:g}", f"{limit / limits['no BN']:g}"))
        rows = [
            (f"x{factor:g}", f"{rate:g}", *(accuracies[number].text(percent) for accuracies in found.values()))
            for number, (factor, rate) in enumerate(rates.items())
        ]
        notes = f"Test accuracy, %, after {task.steps} steps, mean of {budget.seeds} seeds with a t interval."
        tables.append(Table(title, ("factor", "learning rate", *found), tuple(rows), notes))
        lines = [banded(name, list(rates.values()), accuracies) for name, accuracies in found.items()]
        panels.append(Panel(title, "learning rate", "test accuracy", lines, log="x"))
    stable = Table(
        "The largest stable rate",
        ("network", "variant", "best rate without BN", "largest stable rate", "that over the one without BN"),
        tuple(summary),
        f"Among {', '.join(map(str, FACTORS))} times the best rate without BN.",
    )
    return Report([stable, *tables], panels)


def _variants(plain: Make, s_shaped: bool) -> Mapping[str, Make]:
    """Without BN, with it where `position="auto"` puts it, and before s-shaped activations as well."""
    found = {"no BN": plain, "kerasbn": rewritten(plain)}
    if s_shaped:
        found["before"] = rewritten(plain, position="before")
    return found


def _last_stable(accuracies: Sequence[Estimate]) -> int:
    values = np.array([accuracy.value for accuracy in accuracies])
    return int(np.flatnonzero(values >= SHARE * values.max())[-1])
