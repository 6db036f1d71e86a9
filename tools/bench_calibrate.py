"""What `kerasbn.callbacks.Calibrate` adds to an epoch of ResNet-20 on images of 32x32 pixels.

    python tools/bench_calibrate.py

An epoch is that of CIFAR-10, 50,000 images in batches of 128: the time of a step, measured over some, times 391. Steps
and the measuring of statistics, on 20 batches of 32, take turns, so that a machine which other work slows down for a
while slows both alike. The share is the ratio of the two within each turn.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console

from reporting import Table, machine, spread

STEPS_OF_AN_EPOCH = 391
BATCH, TIMED = 128, 10
REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "calibrate.md"


def shares(turns: int) -> dict[str, list[float]]:
    """Seconds of an epoch and of the measuring, exact and in one pass, and their ratios, turn by turn."""
    import keras
    import numpy as np

    import kerasbn
    from bench_layer import resnet20

    generator = np.random.default_rng(0)
    images = generator.normal(size=(BATCH * TIMED, 32, 32, 3)).astype("float32")
    labels = generator.integers(0, 10, len(images))
    model = resnet20()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found: dict[str, list[float]] = {"an epoch": [], "exact": [], "in one pass": []}
    for turn in range(-1, turns):
        taken = {}
        for name, do in {
            "an epoch": lambda: model.fit(images, labels, batch_size=BATCH, verbose=0),
            "exact": lambda: kerasbn.calibrate(model, images, steps=20),
            "in one pass": lambda: kerasbn.calibrate(model, images, steps=20, passes=1),
        }.items():
            started = time.perf_counter()
            do()
            taken[name] = time.perf_counter() - started
        if turn >= 0:
            taken["an epoch"] *= STEPS_OF_AN_EPOCH / TIMED
            for name, seconds in taken.items():
                found[name].append(seconds)
    return found


@click.command()
@click.option("--turns", default=7, show_default=True, type=click.IntRange(1))
@click.option("--output", default=REPORT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(turns: int, output: Path) -> None:
    """Measure what Calibrate adds to an epoch."""
    described = machine()
    found = shares(turns)
    epochs = found.pop("an epoch")
    rows = [("an epoch of training", spread(epochs, 1), "")]
    for name, seconds in found.items():
        ratios = [100 * own / epoch for own, epoch in zip(seconds, epochs, strict=True)]
        rows.append((f"20 batches of 32 measured, {name}", spread(seconds, 1), spread(ratios, 1)))
    table = Table(
        "ResNet-20", ("what", "seconds", "% of the epoch"), tuple(rows), f"Median (min..max) of {turns} turns."
    )
    intro = "Made by `python tools/bench_calibrate.py`, which says how it measures. The machine is shared."
    output.write_text(f"# Calibrate: what it adds to an epoch\n\n{intro}\n\n{described}\n\n{table.markdown()}")
    Console().print(table.rich())


if __name__ == "__main__":
    main()
