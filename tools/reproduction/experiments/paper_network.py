"""BN reaches the accuracy of the network without in a fraction of the steps.

The network of Ioffe and Szegedy (2015, section 4.1): three layers of 100 sigmoid units, small
Gaussian weights, batches of 60; here on scikit-learn's digits. How small the weights are, the paper
does not say, and much depends on it, so three scales are tried. The aims: 14 times fewer steps with
SGD, which is the paper's headline for BN-Inception, and 8 times with Adam.

The rows: without BN; `kerasbn.rewrite` with its defaults, which put BN behind the sigmoid; before
it, as in the paper; and behind it with Keras's layer, whose moving averages follow slowly with its
default momentum.

The figure is the paper's Figure 1: the {15, 50, 85}th percentiles of what one sigmoid of the last
hidden layer gets, over the test part, in the course of training at the best rate.
"""

from __future__ import annotations

import keras

from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.drift import drift
from reproduction.networks import Make, dense, from_seed, rewritten
from reproduction.report import Report, steps_table, sweep_panel, sweep_table

RATES = {
    "SGD": ((0.5, 1, 2, 3, 5, 8), (0.02, 0.05, 0.1, 0.2, 0.5, 1)),
    "Adam": ((0.005, 0.01, 0.02, 0.03, 0.05), (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)),
}
"""The rates tried for each optimizer, without BN and with it."""
SCALES = (0.05, 0.01, 0.1)
"""Standard deviations of the first weights. The first one is that of the figure."""


def run(budget: Budget) -> Report:
    """Try it."""
    tables, panels = [], []
    for scale in SCALES[:1] if budget.quick else SCALES:
        task = Task(data.digits(), steps=budget.steps(5000 if scale < SCALES[0] else 3000), target=0.95, every=5)
        for optimizer in RATES:
            results = compare(_candidates(scale, optimizer), task, budget)
            setting = f"{optimizer}, weights of standard deviation {scale}"
            tables += [steps_table(setting, results, task), sweep_table(f"Rates: {setting}", results, task)]
            if scale == SCALES[0]:
                panels.append(sweep_panel(setting, results, task))
            if scale == SCALES[0] and optimizer == "SGD":
                panels += [drift(result, task, "sigmoid3", budget.steps(1000)) for result in (results[0], results[2])]
    return Report(tables, panels)


def _candidates(scale: float, optimizer: str) -> list[Candidate]:
    without, with_bn = RATES[optimizer]
    plain: Make = from_seed(lambda: dense(3, "sigmoid", keras.initializers.RandomNormal(stddev=scale)), optimizer)
    quick = keras.layers.BatchNormalization(momentum=0.9)
    return [
        Candidate("no BN", plain, without),
        Candidate("kerasbn", rewritten(plain), with_bn),
        Candidate("before", rewritten(plain, position="before"), with_bn),
        Candidate("Keras's layer", rewritten(plain, norm=keras.layers.BatchNormalization()), with_bn),
        Candidate("Keras's layer, momentum 0.9", rewritten(plain, norm=quick), with_bn),
    ]
