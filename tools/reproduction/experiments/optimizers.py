"""How much to raise the learning rate depends on the optimizer, and on the network.

The rate that is best without BN, and `kerasbn.rewrite` at that rate and at multiples of it: what
`learning_rate_scale` is worth with SGD, with momentum, and with adaptive optimizers, where the rate
is a bound on each weight's step and not a factor of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, accuracies, sweep
from reproduction.networks import convolutions, dense, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent

FACTORS = (0.3, 1, 2, 5, 10, 30)
OPTIMIZERS: Mapping[str, tuple[Mapping[str, Any], tuple[float, ...]]] = {
    "SGD": ({"class_name": "SGD", "config": {}}, (0.03, 0.1, 0.3, 1)),
    "SGD, momentum 0.9": ({"class_name": "SGD", "config": {"momentum": 0.9}}, (0.003, 0.01, 0.03, 0.1)),
    "Adam": ({"class_name": "Adam", "config": {}}, (0.001, 0.003, 0.01, 0.03)),
    "RMSprop": ({"class_name": "RMSprop", "config": {}}, (0.0003, 0.001, 0.003, 0.01)),
}
"""The optimizer, and the rates among which the best one without BN is sought."""
NETWORKS: Mapping[str, tuple[Callable[[], keras.Model], Callable[[], data.Dataset]]] = {
    "4 x 100 ReLU, digits": (lambda: dense(4, "relu"), data.digits),
    "3 convolutions, ReLU, signals": (lambda: convolutions("relu"), data.signals),
    "3 convolutions, tanh, signals": (lambda: convolutions("tanh"), data.signals),
}


def run(budget: Budget) -> Report:
    """Try it."""
    factors = budget.rates(FACTORS)
    tables, panels = [], []
    for title, (build, load) in NETWORKS.items():
        task = Task(load(), budget.steps(300), every=20)
        rows, lines = [], []
        for name, (optimizer, rates) in OPTIMIZERS.items():
            plain = from_seed(build, optimizer)
            scores = sweep(Candidate(name, plain, rates), task.trainer(plain), task, budget)
            best = max(scores, key=lambda rate: scores[rate])
            (without,) = accuracies(Candidate(name, plain, [best]), task, budget)
            with_bn = Candidate(f"{name}, BN", rewritten(plain), [best * factor for factor in factors])
            found = accuracies(with_bn, task, budget)
            edge = "*" if best in (min(scores), max(scores)) else ""
            rows.append((name, f"{best:g}{edge}", *(each.text(percent) for each in (without, *found))))
            lines.append(banded(name, list(factors), found))
        notes = (
            f"Test accuracy, %, after {task.steps} steps, mean of {budget.seeds} seeds with a t interval. *The first "
            "or last rate that was tried without BN."
        )
        columns = ("optimizer", "best rate without BN", "no BN", *(f"BN, x{factor:g}" for factor in factors))
        tables.append(Table(title, columns, tuple(rows), notes))
        panels.append(Panel(title, "learning_rate_scale", "test accuracy", lines, log="x"))
    return Report(tables, panels)
