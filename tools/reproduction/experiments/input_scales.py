"""BN on the inputs does what standardising the data does.

scikit-learn's digits, each of the 64 numbers in a unit of its own: multiplied by a power of ten
between 10^-3 and 10^3. Two layers of 100 ReLU units take them as they are, standardised by
scikit-learn's StandardScaler, or by `kerasbn.rewrite(model, normalize_inputs=True)`.
"""

from __future__ import annotations

import keras
import numpy as np
from sklearn.preprocessing import StandardScaler

from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.networks import dense, from_seed, rewritten
from reproduction.report import Report, accuracy_panel, accuracy_table, sweep_table

RATES = (0.01, 0.03, 0.1, 0.3, 1)
RAW_RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def run(budget: Budget) -> Report:
    """Try it."""
    units = 10 ** np.random.default_rng(0).uniform(-3, 3, 64).astype("float32")
    raw = data.digits().mapped(lambda inputs: inputs * units)
    standardised = raw.mapped(StandardScaler().fit(raw.train[0]).transform)
    steps = budget.steps(400)
    plain = from_seed(lambda: dense(2, "relu"))
    on_inputs = {"position": "none", "normalize_inputs": True}
    quick = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-8)
    sample = raw.train[0]
    task = Task(raw, steps, every=20)
    results = [
        *compare([Candidate("as they are", plain, RAW_RATES)], task, budget),
        *compare([Candidate("StandardScaler", plain, RATES)], Task(standardised, steps, every=20), budget),
        *compare(
            [
                Candidate("input BN, defaults", rewritten(plain, **on_inputs), RATES),
                Candidate("input BN from a sample", rewritten(plain, **on_inputs, data=sample, preserve=False), RATES),
                Candidate("input BN, momentum 0.9", rewritten(plain, **on_inputs, norm=quick), RATES),
            ],
            task,
            budget,
        ),
    ]
    panel = accuracy_panel("digits in 64 units", results, task)
    return Report([accuracy_table("Accuracy", results, task), sweep_table("Rates", results, task)], [panel])
