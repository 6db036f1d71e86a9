"""BN before an activation and behind it are no different within the noise, with tanh and with ReLU; either beats none.

A convolution net of three layers on signals like those of MNIST-1D, with tanh and with ReLU; no
BN, BN before the activation, and behind it. `position="auto"` puts it behind tanh and before ReLU.
"""

from __future__ import annotations

from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.networks import convolutions, from_seed, rewritten
from reproduction.report import Report, accuracy_panel, accuracy_table, sweep_table

RATES = (0.03, 0.1, 0.3, 1, 3)


def run(budget: Budget) -> Report:
    """Try it."""
    task = Task(data.signals(), budget.steps(400), every=20)
    tables, panels = [], []
    for activation in ("tanh", "relu"):
        plain = from_seed(lambda activation=activation: convolutions(activation))
        candidates = [Candidate("no BN", plain, RATES)]
        candidates += [
            Candidate(position, rewritten(plain, position=position), RATES) for position in ("before", "after")
        ]
        results = compare(candidates, task, budget)
        tables += [accuracy_table(activation, results, task), sweep_table(f"Rates: {activation}", results, task)]
        panels.append(accuracy_panel(activation, results, task))
    return Report(tables, panels)
