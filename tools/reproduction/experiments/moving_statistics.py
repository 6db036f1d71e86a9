"""Which moving statistics to insert.

Two networks of three normalized layers of 100 units on scikit-learn's digits, trained by SGD in
small batches with different settings of the moving statistics. These tell at inference alone, so
the weights are the same for all settings, and what differs is the loss of the inference model: with
the moving statistics, and with exact ones, measured on the training part by `kerasbn.calibrate`.

`kerasbn.rewrite` inserts a momentum of 0.95 with the correction of the bias. 0.9 is better for the
first tens of steps, and too restless for batches of 4 in the end; 0.99 without the correction takes
hundreds of steps. `unbiased_variance` estimates the population's variance better, yet while it
trains the network sees values that were divided by the biased one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget
from reproduction.intervals import mean
from reproduction.networks import dense, from_seed, rewritten
from reproduction.report import Panel, Report, banded
from reproduction.training import Trainer

RATE = 0.05
EVERY = 10
STAGES = (20, 50, 200, 600, 2000)
BATCH_SIZES = (4, 32)
NETWORKS = {"relu": "BN before ReLU", "sigmoid": "BN behind the sigmoid"}
"""The activation, and where `position="auto"` puts BN."""
EXACT = "exact statistics"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "momentum 0.99, as Keras": {},
    "0.99, debiased": {"zero_debias": True},
    "0.97, debiased": {"momentum": 0.97, "zero_debias": True},
    "0.95, debiased": {"momentum": 0.95, "zero_debias": True},
    "0.95, debiased, unbiased": {"momentum": 0.95, "zero_debias": True, "unbiased_variance": True},
    "0.9, debiased": {"momentum": 0.9, "zero_debias": True},
    "0.9": {"momentum": 0.9},
    "cumulative": {"momentum": None},
    EXACT: {},
}


def run(budget: Budget) -> Report:
    """Try it."""
    stages = (10, 20) if budget.quick else STAGES
    tables, panels = [], []
    for (activation, network), batch_size in itertools.product(NETWORKS.items(), BATCH_SIZES):
        plain = from_seed(lambda activation=activation: dense(3, activation))
        rows, lines = [], []
        for setting, arguments in SETTINGS.items():
            make = rewritten(plain, norm=kerasbn.layers.BatchNormalization(**arguments))
            trainer = Trainer(make(0), data.digits(), EVERY, batch_size)
            seen = [_losses(trainer, make(seed), stages, seed, setting == EXACT) for seed in range(budget.seeds)]
            means = [mean(column) for column in np.transpose(seen)]
            rows.append((setting, *(one.text("{:.3f}".format) for one in means)))
            lines.append(banded(setting, stages, means))
        title = f"{network}, batches of {batch_size}"
        notes = f"Loss on the test part, mean of {budget.seeds} seeds with a t interval."
        tables.append(Table(title, ("statistics", *(f"{steps} steps" for steps in stages)), tuple(rows), notes))
        panels.append(Panel(title, "steps", "test loss", lines, log="xy"))
    return Report(tables, panels)


def _losses(trainer: Trainer, start: keras.Model, stages: Sequence[int], seed: int, calibrated: bool) -> list[float]:
    """The loss of the inference model at each stage of a training run."""
    digits = data.digits()
    losses: list[float] = []
    evaluations = itertools.count(EVERY, EVERY)

    def watch() -> None:
        if next(evaluations) in stages:
            if calibrated:
                kerasbn.calibrate(trainer.model, digits.train[0])
            losses.append(trainer.model.evaluate(*digits.test, batch_size=len(digits.test[0]), verbose=0))

    trainer.run(start, RATE, seed, stages[-1], watch=watch)
    return losses
