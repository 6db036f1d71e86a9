"""BN speeds up one hidden layer on a problem of two dimensions, twofold with tanh, with ReLU hardly.

Two noisy circles, one in the other (scikit-learn's `make_circles` with noise 0.1), and one hidden
layer of 50 units: the example of many tutorials. No BN, BN before the activation, and behind it.
With this noise not much more than 80 % can be reached.
"""

from __future__ import annotations

import keras
from keras import layers

from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.networks import from_seed, rewritten
from reproduction.report import Report, steps_table, sweep_panel, sweep_table

RATES = (0.01, 0.03, 0.1, 0.3, 1, 3)


def run(budget: Budget) -> Report:
    """Try it."""
    task = Task(data.circles(), budget.steps(2000), target=0.78)
    tables, panels = [], []
    for activation in ("relu", "tanh"):
        plain = from_seed(lambda activation=activation: network(activation))
        candidates = [Candidate("no BN", plain, RATES)]
        candidates += [
            Candidate(position, rewritten(plain, position=position), RATES) for position in ("before", "after")
        ]
        results = compare(candidates, task, budget)
        tables += [steps_table(activation, results, task), sweep_table(f"Rates: {activation}", results, task)]
        panels.append(sweep_panel(activation, results, task))
    return Report(tables, panels)


def network(activation: str) -> keras.Model:
    """One hidden layer."""
    return keras.Sequential([keras.Input((2,)), layers.Dense(50, activation=activation), layers.Dense(2)])
