"""An auxiliary head makes no difference on digits that eight seeds show, with BN, with Dropout or with neither.

Szegedy et al. (2016, section 4) on the small Inception of the page on Inception, its convolutions with BN by kerasbn:
without an auxiliary head, and with one whose hidden layer has neither BN nor Dropout, BN, or Dropout of 70 %. Its loss
counts 0.3 times. In the paper a head with BN gave 0.4 points more than one without, and regularized; here the two end
0.2 points apart, less than the width of either's interval.
"""

from __future__ import annotations

from collections.abc import Mapping

import click
import keras
import numpy as np

import kerasbn
from reporting import Table
from reproduction import data
from reproduction.comparison import FIRST_SWEEP_SEED, Budget
from reproduction.intervals import mean, verdict
from reproduction.networks import Make
from reproduction.report import Panel, Report, banded, percent
from reproduction.small_inception import DECAY, HIDDEN, small_inception
from reproduction.trained import Trained
from reproduction.training import Trainer

RATES = (0.01, 0.03, 0.1, 0.3)
STEPS, EVERY, BATCH = 2000, 100, 32
WITHOUT = "no auxiliary head"
NETWORKS: Mapping[str, tuple[float | None, bool]] = {
    WITHOUT: (None, False),
    "head with neither": (0.0, False),
    "head with BN": (0.0, True),
    "head with Dropout": (0.7, False),
}
"""The Dropout of the auxiliary head, and whether its hidden layer has BN."""


def run(budget: Budget) -> Report:
    """Try it."""
    digits = data.large_digit_images(budget.mnist)
    steps, every = budget.steps(STEPS), budget.steps(EVERY)
    shift, sweep_seeds = digits.shape[0] // 14, range(FIRST_SWEEP_SEED, FIRST_SWEEP_SEED + budget.sweep_seeds)
    found: dict[str, list[float]] = {}
    rows, lines = [], []
    for name, head in NETWORKS.items():
        tried = {
            rate: Trained(
                f"{name} at {rate:g}",
                _maker(digits.shape, *head, rate, steps),
                lambda model: Trainer(model, digits, every, BATCH, shift=shift),
                steps,
                budget.store,
            )
            for rate in budget.rates(RATES)
        }
        swept = {rate: np.mean([one.run(seed).validation[-1] for seed in sweep_seeds]) for rate, one in tried.items()}
        rate = max(swept, key=lambda each: swept[each])
        runs = [tried[rate].run(seed) for seed in range(budget.seeds)]
        found[name] = [float(one.test[-1]) for one in runs]
        against = "" if name == WITHOUT else verdict(found[WITHOUT], found[name])
        shown = " ".join(f"{rate:g}: {percent(float(score))}" for rate, score in swept.items())
        rows.append((name, f"{rate:g}", mean(found[name]).text(percent), against, shown))
        click.echo(" | ".join(rows[-1]), err=True)
        seen = [mean(column) for column in np.transpose([one.test for one in runs])]
        lines.append(banded(name, [every * (number + 1) for number in range(len(seen))], seen))
    table = Table(
        "In the end",
        ("network", "learning rate", "test accuracy, %", "than without the head", "validation accuracy by rate, %"),
        tuple(rows),
        f"After {steps} steps, mean of {budget.seeds} seeds with a t interval, a Welch test at 5 %; the rate is that "
        f"at the start. {len(digits.train[1]):,} digits to train on, {len(digits.test[1]):,} to test on.",
    )
    return Report([table], [Panel("By step", "steps", "test accuracy", lines)])


def _maker(shape: tuple[int, ...], dropout: float | None, normalized: bool, rate: float, steps: int) -> Make:
    rules = [] if dropout is None or normalized else [(HIDDEN, "skip")]

    def make(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = small_inception(shape, auxiliary_dropout=dropout)
        schedule = keras.optimizers.schedules.ExponentialDecay(rate, steps // 2, DECAY)
        losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in model.outputs]
        model.compile(keras.optimizers.SGD(schedule, momentum=0.9), losses, loss_weights=[1.0, 0.3][: len(losses)])
        return kerasbn.rewrite(model, position="before", dropout="none", rules=rules)

    return make
