"""For 20 of 23 activations the other place is not better than that of `auto`; squareplus, hard_shrink and exponential
are better with BN behind them.

Three convolutions on signals like those of MNIST-1D, SGD, for each activation that Keras names and kerasbn places:
no BN, BN before the activation, BN behind it, each at the best of its rates. The last column has which of the two is
better, where a Welch test at 5 % says so, beside what `position="auto"` does. One net is no reason to place these three
otherwise by default: `rules` or `position="after"` do it. SELU, whose nets `auto` leaves alone, has Keras's default
initializer here and not its own, and gains by BN.
"""

from __future__ import annotations

from kerasbn.catalog.activations import PLACING
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.intervals import differ, mean
from reproduction.networks import convolutions, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent

RATES = (0.03, 0.1, 0.3, 1, 3)
NOT_HIDDEN = frozenset({"softmax", "log_softmax", "sparsemax", "glu", "threshold", "prelu"})
"""Not elementwise, or with weights or arguments of their own."""


def run(budget: Budget) -> Report:
    """Try it."""
    task = Task(data.signals(), budget.steps(400), every=20)
    names = [name for name in PLACING if name not in NOT_HIDDEN]
    rows, found = [], []
    for activation in names[:2] if budget.quick else names:
        plain = from_seed(lambda activation=activation: convolutions(activation))
        candidates = [Candidate("no BN", plain, RATES)]
        candidates += [
            Candidate(position, rewritten(plain, rules=[("conv1d*", position)]), RATES)
            for position in ("before", "after")
        ]
        none, *placed = compare(candidates, task, budget)
        found.append([mean(result.last) for result in placed])
        shown = (f"{mean(result.last).text(percent)} ({result.rate:g})" for result in (none, *placed))
        rows.append((activation, PLACING[activation], *shown, _better(*(result.last for result in placed))))
    agree = sum(row[1] == row[-1] for row in rows)
    against = sum(row[-1] in ("before", "after") and row[1] != row[-1] for row in rows)
    table = Table(
        "Test accuracy, %",
        ("activation", "auto", "no BN", "before", "after", "better"),
        tuple(rows),
        f"After {task.steps} steps, mean of {budget.seeds} seeds with a t interval; in brackets the rate, the best of "
        f"{', '.join(f'{rate:g}' for rate in RATES)}. The better one is what `auto` does {agree} times, what it does "
        f"not {against} times, and not to be told the other times.",
    )
    numbers = range(len(found))
    lines = [banded(name, numbers, [each[index] for each in found]) for index, name in enumerate(("before", "after"))]
    panel = Panel("By activation", "activation", "test accuracy", lines, names=names)
    return Report([table], [panel])


def _better(before: list[float], after: list[float]) -> str:
    """Which is better, where that is to be told."""
    if not differ(before, after):
        return "-"
    return "before" if sum(before) > sum(after) else "after"
