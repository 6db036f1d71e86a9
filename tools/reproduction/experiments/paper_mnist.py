"""At the paper's size BN takes at most a tenth of the steps, and the sigmoid that is looked at does not saturate.

Ioffe and Szegedy (2015, section 4.1) as it was run: three layers of 100 sigmoid units on digits of 28x28 pixels,
small Gaussian weights (of standard deviation 0.05 here; the paper does not say), SGD, batches of 60, 50,000 steps.
Each at the best of its rates: without BN; `kerasbn.rewrite` with its defaults, which put BN behind the sigmoid; and
before it, as in the paper, which takes longer here. Two of the figures are the paper's Figure 1 (b, c): the
{15, 50, 85}th percentiles of what one sigmoid of the last hidden layer gets, over the test part.
"""

from __future__ import annotations

import dataclasses

import keras

from reporting import Table
from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare, train
from reproduction.drift import drift
from reproduction.intervals import mean
from reproduction.networks import Make, dense, from_seed, rewritten
from reproduction.report import Report, accuracy_panel, percent, steps_table, sweep_table

WITHOUT, WITH = (1, 2, 5, 10, 20), (0.2, 0.5, 1, 2, 5, 10)
"""The rates tried without BN and with it."""
AT = (500, 2500, 10_000, 50_000)
"""The steps after which the accuracy is reported."""


def run(budget: Budget) -> Report:
    """Try it."""
    digits = data.large_digit_images(budget.mnist).mapped(lambda images: images.reshape(len(images), -1))
    (size,) = digits.shape
    plain: Make = from_seed(lambda: dense(3, "sigmoid", keras.initializers.RandomNormal(stddev=0.05), size))
    candidates = [
        Candidate("no BN", plain, WITHOUT),
        Candidate("kerasbn", rewritten(plain), WITH),
        Candidate("before", rewritten(plain, position="before"), WITH),
    ]
    task = Task(digits, budget.steps(10_000), target=0.95, every=10, title="to 95 %", store=budget.store)
    results = compare(candidates, task, budget)
    whole = Task(digits, budget.steps(AT[-1]), every=budget.steps(500), title="whole", store=budget.store)
    results_of_all = [
        dataclasses.replace(
            each, runs=train(each.candidate, each.rate, whole.trainer(each.candidate.make), whole, range(budget.seeds))
        )
        for each in results
    ]
    reported = [steps for steps in AT if steps <= whole.steps] or [whole.steps]
    rows = [
        (
            each.candidate.name,
            f"{each.rate:g}",
            *(mean([float(run.test[steps // run.every - 1]) for run in each.runs]).text(percent) for steps in reported),
        )
        for each in results_of_all
    ]
    accuracy = Table(
        "Test accuracy, %",
        ("network", "learning rate", *(f"after {steps:,} steps" for steps in reported)),
        tuple(rows),
        f"Mean of {budget.seeds} seeds with a t interval; {len(digits.train[1]):,} digits to train on, "
        f"{len(digits.test[1]):,} to test on.",
    )
    shown = dataclasses.replace(task, every=budget.steps(50))
    panels = [accuracy_panel("All steps", results_of_all, whole)]
    panels += [drift(result, shown, "sigmoid3", budget.steps(5000)) for result in (results[0], results[2])]
    return Report([steps_table("To 95 %", results, task), accuracy, sweep_table("Rates", results, task)], panels)
