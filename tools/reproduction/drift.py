"""What the sigmoids of a network get in the course of training: Figure 1 of Ioffe and Szegedy (2015)."""

from __future__ import annotations

import numpy as np

from kerasbn.statistics.percentiles import input_percentiles
from reproduction.comparison import Result, Task
from reproduction.data import Array
from reproduction.report import Line, Panel

SHARES = (15, 50, 85)
"""The percentiles of the figure."""


def drift(result: Result, task: Task, layer: str, steps: int) -> Panel:
    """The percentiles of what the first unit's activation gets in a layer, for seed 0 at the best rate.

    Args:
        result: The network and its best rate.
        task: The data, and how often to look.
        layer: The name of the activation.
        steps: How long to train.
    """
    trainer = task.trainer(result.candidate.make)
    seen: list[Array] = []

    def watch() -> None:
        (values,) = input_percentiles(trainer.model, task.data.test[0], layer, SHARES, channel=0).values()
        seen.append(values)

    trainer.run(result.candidate.make(0), result.rate, seed=0, steps=steps, watch=watch)
    at = range(task.every, task.every * len(seen) + 1, task.every)
    lines = [Line(f"{share}th", at, values) for share, values in zip(SHARES, np.transpose(seen), strict=True)]
    return Panel(f"Input of one sigmoid: {result.candidate.name}", "steps", "percentiles", lines)
