"""With BN a deep sigmoid network trains that without it stays at chance.

Twelve layers of 100 sigmoid units on scikit-learn's digits, with Keras's own initialization;
chance is 10 %. Ioffe and Szegedy (2015, section 4.2.2) saw it with an Inception of sigmoids.
"""

from __future__ import annotations

from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.networks import dense, from_seed, rewritten
from reproduction.report import Report, accuracy_panel, accuracy_table, sweep_table

SGD_RATES = (0.03, 0.1, 0.3, 1, 3, 10)
ADAM_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)


def run(budget: Budget) -> Report:
    """Try it."""
    task = Task(data.digits(), budget.steps(400), every=20)
    tables, panels = [], []
    for optimizer, rates in {"SGD": SGD_RATES, "Adam": ADAM_RATES}.items():
        plain = from_seed(lambda: dense(12, "sigmoid"), optimizer)
        results = compare(
            [
                Candidate("no BN", plain, rates),
                Candidate("kerasbn", rewritten(plain), rates),
                Candidate("before", rewritten(plain, position="before"), rates),
            ],
            task,
            budget,
        )
        tables += [accuracy_table(optimizer, results, task), sweep_table(f"Rates: {optimizer}", results, task)]
        panels.append(accuracy_panel(optimizer, results, task))
    return Report(tables, panels)
