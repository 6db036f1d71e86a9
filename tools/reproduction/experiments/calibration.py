"""After few steps, calibrated statistics are worth more than moving averages.

The 3x100 sigmoid network on scikit-learn's digits, rewritten, SGD at one rate: the accuracy with the
moving averages that training has left, and after `kerasbn.calibrate` on the training part, in one pass
over it and layer after layer; with Keras's layer and its default momentum of 0.99, with 0.9, and with what
kerasbn inserts by default.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget
from reproduction.intervals import mean
from reproduction.networks import Make, dense, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent
from reproduction.training import Trainer

RATE = 0.1
STEPS = (20, 50, 100, 200, 500)
NORMS = {
    "Keras's layer": lambda: keras.layers.BatchNormalization(),
    "Keras's layer, momentum 0.9": lambda: keras.layers.BatchNormalization(momentum=0.9),
    "kerasbn's defaults": lambda: None,
}


def run(budget: Budget) -> Report:
    """Try it."""
    plain = from_seed(lambda: dense(3, "sigmoid"))
    stages = (10, 20) if budget.quick else STEPS
    rows, lines = [], []
    for setting, norm in NORMS.items():
        make = rewritten(plain, norm=norm())
        for name, seen in _accuracies(make, stages, budget.seeds).items():
            means = [mean(column) for column in np.transpose(seen)]
            title = f"{name}, {setting}"
            rows.append((title, *(one.text(percent) for one in means)))
            lines.append(banded(title, stages, means))
    table = Table(
        "Test accuracy, %",
        ("statistics", *(f"after {steps} steps" for steps in stages)),
        tuple(rows),
        f"Mean of {budget.seeds} seeds with a t interval; the same runs, evaluated three times.",
    )
    return Report([table], [Panel("digits, 3x100 sigmoid", "steps", "test accuracy", lines, log="x")])


def _accuracies(make: Make, stages: tuple[int, ...], seeds: int) -> Mapping[str, list[list[float]]]:
    """The test accuracies of each seed at each stage."""
    digits = data.digits()
    trainers = {steps: Trainer(make(0), digits, every=steps) for steps in stages}
    found: dict[str, list[list[float]]] = {"moving averages": [], "calibrated in one pass": [], "calibrated": []}
    for seed in range(seeds):
        runs = [trainers[steps].run(make(seed), RATE, seed, steps) for steps in stages]
        found["moving averages"].append([float(one.test[-1]) for one in runs])
        for name, passes in (("calibrated in one pass", 1), ("calibrated", None)):
            for trainer in trainers.values():
                kerasbn.calibrate(trainer.model, digits.train[0], passes=passes)
            found[name].append([trainer.scores()[1] for trainer in trainers.values()])
    return found
