"""Which moving statistics to insert: digits, small batches, few epochs.

    python tools/moving_statistics.py

Trains a small network with batch normalization on scikit-learn's 1797 digits with different settings
of the moving statistics, from the same starting weights on the same batches, and measures accuracy
and loss in inference mode, which is where the settings tell. "Gap" is the loss less the one with
exact population statistics: moving statistics that are averaged over the whole training set, with the
very weights that were trained. It is what the setting alone costs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
import sklearn.datasets
from rich.console import Console

from kerasbn.layers import BatchNormalization
from reporting import Table, spread

REPORT = Path(__file__).resolve().parent.parent / "docs" / "moving_statistics.md"
SETTINGS: Mapping[str, dict[str, Any]] = {
    "momentum .99 (Keras)": {},
    "momentum .99, unbiased": {"unbiased_variance": True},
    "momentum .99, debiased": {"zero_debias": True},
    "momentum .99, both": {"zero_debias": True, "unbiased_variance": True},
    "momentum .9": {"momentum": 0.9},
    "momentum .9, both": {"momentum": 0.9, "zero_debias": True, "unbiased_variance": True},
    "cumulative, unbiased": {"momentum": None, "unbiased_variance": True},
}
CASES = ((4, 20), (4, 200), (32, 20), (32, 200))
"""Batch size, and number of steps."""


def network(arguments: dict[str, Any]) -> keras.Model:
    stack: list[keras.layers.Layer] = []
    for _ in range(3):
        stack += [keras.layers.Dense(100, use_bias=False), BatchNormalization(**arguments), keras.layers.ReLU()]
    model = keras.Sequential([keras.Input((64,)), *stack, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, metrics=["accuracy"])
    return model


def with_population_statistics(model: keras.Model, x: np.ndarray) -> keras.Model:
    """The same weights with statistics over all of x, layer after layer on what is then normalized by them."""
    exact = network({"momentum": 0.0})
    for ours, theirs in zip(exact.layers, model.layers, strict=True):
        ours.set_weights(theirs.get_weights()[: len(ours.weights)])
    hidden = x
    for layer in exact.layers:
        norm = isinstance(layer, BatchNormalization)
        hidden = layer(hidden, training=True) if norm else layer(hidden)
    return exact


def trial(arguments: dict[str, Any], batch: int, steps: int, seed: int) -> tuple[float, float, float]:
    """Accuracy and loss on the test set, and the gap to exact statistics."""
    images, digits = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, digits = images[order].astype("float32"), digits[order]
    x, y, test = images[:1400], digits[:1400], (images[1400:], digits[1400:])
    keras.utils.set_random_seed(seed)
    model = network(arguments)
    chosen = np.random.default_rng(seed).integers(0, len(x), size=(steps, batch))
    for indices in chosen:
        model.train_on_batch(x[indices], y[indices])
    loss, accuracy = model.evaluate(*test, verbose=0)
    exact, _ = with_population_statistics(model, x).evaluate(*test, verbose=0)
    return accuracy, loss, loss - exact


def table(seeds: int, console: Console) -> Table:
    rows = []
    for batch, steps in CASES:
        for name, arguments in SETTINGS.items():
            results = [trial(arguments, batch, steps, seed) for seed in range(seeds)]
            row = (f"batch {batch}, {steps} steps", name, *(spread(each, 3) for each in zip(*results, strict=True)))
            console.print("  ".join(row))
            rows.append(row)
    return Table(
        "Digits, three normalized layers of 100 units",
        ("case", "setting", "accuracy", "loss", "gap"),
        tuple(rows),
        notes=f"Median (min..max) of {seeds} seeds.",
    )


@click.command()
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--output", default=REPORT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(seeds: int, output: Path) -> None:
    """Measure the settings of the moving statistics."""
    console = Console() if sys.stdout.isatty() else Console(width=160)
    result = table(seeds, console)
    output.write_text(f"# Which moving statistics to insert\n\n{INTRO}\n\n{result.markdown()}")
    console.print(f"written to {output}")


INTRO = """Made by `python tools/moving_statistics.py`, which says how it measures. `kerasbn.rewrite` inserts
`BatchNormalization(zero_debias=True)`: without the correction a short training ends with statistics that are mostly
where they started. `unbiased_variance` estimates the population's variance better, yet lowers the loss in the shortest
training alone: while it trains, the network sees values that were divided by the biased one."""

if __name__ == "__main__":
    main()
