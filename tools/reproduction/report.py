"""What a reproduction reports: tables, and the lines behind its plot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from reporting import Table
from reproduction.comparison import Result, Task
from reproduction.intervals import Estimate, mean, median, ratio_of_medians


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a plot, with a band around it where it has one."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def banded(name: str, x: Sequence[float], estimates: Sequence[Estimate]) -> Line:
    """A line through estimates, with their intervals as its band."""
    ends = ([getattr(estimate, end) for estimate in estimates] for end in ("value", "low", "high"))
    return Line(name, x, *ends)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes of a plot.

    Attributes:
        title: What stands above it.
        x: What the numbers on the x-axis are.
        y: What those on the y-axis are.
        lines: What is drawn.
        log: The axes with a logarithmic scale.
        names: What 0, 1, ... on the x-axis stand for, where they are no numbers.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: str = ""
    names: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """What an experiment found."""

    tables: Sequence[Table]
    panels: Sequence[Panel]


def steps_table(title: str, results: Sequence[Result], task: Task, baseline: int = 0) -> Table:
    """Steps to the target, and how many times fewer than the baseline's; never reached counts as the most steps."""
    assert task.target is not None
    steps = [[run.steps_to(task.target, task.steps) for run in result.runs] for result in results]
    rows = []
    for result, own in zip(results, steps, strict=True):
        reached = sum(run.steps_to(task.target) < np.inf for run in result.runs)
        fewer = "1" if own is steps[baseline] else times(ratio_of_medians(steps[baseline], own))
        rows.append((*_named(result), median(own).text("{:.0f}".format), f"{reached}/{len(own)}", fewer))
    goal = f"{task.target:.0%} test accuracy"
    return Table(
        title,
        ("network", "learning rate", f"steps to {goal}", "reached", "times fewer steps"),
        tuple(rows),
        f"Median of {len(steps[0])} seeds, evaluated every {task.every} steps, with a bootstrap interval. A run that "
        f"has not arrived after {task.steps} steps counts as {task.steps}, so a ratio to it is a lower bound. Ratios "
        "below 1 are where BN loses." + _on_edges(results),
    )


def accuracy_table(title: str, results: Sequence[Result], task: Task) -> Table:
    """The accuracy at the end."""
    rows = [(*_named(result), mean(result.last).text(percent)) for result in results]
    return Table(
        title,
        ("network", "learning rate", f"test accuracy, % after {task.steps} steps"),
        tuple(rows),
        f"Mean of {len(results[0].runs)} seeds with a t interval." + _on_edges(results),
    )


def sweep_table(title: str, results: Sequence[Result], task: Task) -> Table:
    """The mean score of every rate that was tried, on the validation part."""
    rates = sorted({rate for result in results for rate in result.sweep})
    shown: Callable[[float], str] = percent if task.target is None else lambda score: f"{-score:.0f}"
    rows = [
        (result.candidate.name, *(shown(result.sweep[rate]) if rate in result.sweep else "" for rate in rates))
        for result in results
    ]
    what = "accuracy, %" if task.target is None else f"steps to {task.target:.0%}"
    return Table(
        title,
        ("network", *(f"{rate:g}" for rate in rates)),
        tuple(rows),
        f"Validation {what}, mean over the seeds of the sweep, which are not those reported.",
    )


def sweep_panel(title: str, results: Sequence[Result], task: Task) -> Panel:
    """The score over the rate."""
    sign = 1 if task.target is None else -1
    lines = [
        Line(result.candidate.name, list(result.sweep), [sign * score for score in result.sweep.values()])
        for result in results
    ]
    what = "validation accuracy" if task.target is None else f"steps to {task.target:.0%} validation accuracy"
    return Panel(title, "learning rate", what, lines, log="x" if task.target is None else "xy")


def accuracy_panel(title: str, results: Sequence[Result], task: Task) -> Panel:
    """The test accuracy over the steps, with its interval."""
    lines = []
    for result in results:
        seen = [mean(column) for column in np.transpose([run.test for run in result.runs])]
        steps = [task.every * (number + 1) for number in range(len(seen))]
        lines.append(banded(result.candidate.name, steps, seen))
    return Panel(title, "steps", "test accuracy", lines)


def percent(share: float) -> str:
    """A share as a percentage without its sign."""
    return f"{100 * share:.1f}"


def times(estimate: Estimate) -> str:
    """A ratio with its interval."""
    return estimate.text("{:.1f}".format)


def _named(result: Result) -> tuple[str, str]:
    return result.candidate.name, f"{result.rate:g}" + ("*" if result.at_edge else "")


def _on_edges(results: Sequence[Result]) -> str:
    if not any(result.at_edge for result in results):
        return ""
    return " *The first or last rate that was tried: a better one may lie beyond."
