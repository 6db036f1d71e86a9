"""A gate is left alone, or normalized ahead of its sigmoid: behind it two of four networks come out worse than so,
none better.

A value in (0, 1) that multiplies: convolutions on signals like those of MNIST-1D with gated linear
units, WaveNet's units (tanh times sigmoid) and spatial gates; highway layers on scikit-learn's
digits. What is gated is normalized as `position="auto"` does it; its gates are left alone, normalized
ahead of the sigmoid, and behind it, where the value is no gate any more.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from reproduction import data
from reproduction.comparison import Budget, Candidate, Task, compare
from reproduction.networks import from_seed, rewritten
from reproduction.report import Report, accuracy_panel, accuracy_table

RATES = (0.03, 0.1, 0.3, 1, 3)
GATES = {"left alone": "skip", "before the sigmoid": "before", "behind the sigmoid": "after"}


def run(budget: Budget) -> Report:
    """Try it."""
    tables, panels = [], []
    for name, (build, make_data) in list(NETWORKS.items())[:1] if budget.quick else NETWORKS.items():
        task = Task(make_data(), budget.steps(400), every=20)
        plain = from_seed(build)
        candidates = [Candidate("no BN", plain, RATES)]
        candidates += [
            Candidate(f"BN, gates {where}", rewritten(plain, rules=[("gate*", position)]), RATES)
            for where, position in GATES.items()
        ]
        if name == "WaveNet's units":
            rules = [("gate*", "skip"), ("feature*", "before")]
            candidates.append(Candidate("BN before tanh, gates left alone", rewritten(plain, rules=rules), RATES))
        results = compare(candidates, task, budget)
        tables.append(accuracy_table(name, results, task))
        panels.append(accuracy_panel(name, results, task))
    return Report(tables, panels)


def gated_convolutions(activation: str | None, gate_filters: int = 24) -> keras.Model:
    """Three convolutions, each multiplied with a gate of its own."""
    x = inputs = keras.Input((40, 1))
    for number, size in enumerate((5, 3, 3)):
        feature = layers.Conv1D(24, size, strides=2, padding="same", activation=activation, name=f"feature{number}")(x)
        gate = layers.Conv1D(gate_filters, size, strides=2, padding="same", activation="sigmoid", name=f"gate{number}")(
            x
        )
        x = layers.Multiply()([feature, gate])
    return keras.Model(inputs, layers.Dense(10, name="class")(layers.Flatten()(x)))


def spatial_gates() -> keras.Model:
    """Three convolutions, their outcome multiplied at each location with a gate computed from it."""
    x = inputs = keras.Input((40, 1))
    for number, size in enumerate((5, 3, 3)):
        x = layers.Conv1D(24, size, strides=2, padding="same", activation="relu", name=f"feature{number}")(x)
        gate = layers.Conv1D(1, 3, padding="same", activation="sigmoid", name=f"gate{number}")(x)
        x = layers.Multiply()([x, gate])
    return keras.Model(inputs, layers.Dense(10, name="class")(layers.Flatten()(x)))


def highway() -> keras.Model:
    """Ten layers that let through as much of their input as a gate says (Srivastava et al., 2015)."""
    inputs = keras.Input((64,))
    x = layers.Dense(50, activation="relu", name="first")(inputs)
    for number in range(10):
        feature = layers.Dense(50, activation="relu", name=f"feature{number}")(x)
        closed = keras.initializers.Constant(-1.0)
        gate = layers.Dense(50, activation="sigmoid", bias_initializer=closed, name=f"gate{number}")(x)
        x = feature * gate + x * (1.0 - gate)
    return keras.Model(inputs, layers.Dense(10, name="class")(x))


NETWORKS: dict[str, tuple[Callable[[], keras.Model], Callable[[], data.Dataset]]] = {
    "Gated linear units": (lambda: gated_convolutions(None), data.signals),
    "WaveNet's units": (lambda: gated_convolutions("tanh"), data.signals),
    "Spatial gates": (spatial_gates, data.signals),
    "Highway layers": (highway, data.digits),
}
