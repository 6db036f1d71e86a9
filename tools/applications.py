"""Every network of `keras.applications`, rewritten with every position: right, or refused with a reason.

    python tools/applications.py            # writes docs/support/applications.md, some minutes

Random weights, BN statistics over decades, 96x96 inputs. "Difference" is the greatest difference at
inference from the source's outputs, relative to the greatest output; the bound is 1e-5, or 30 times
what a relative change of 1e-6 in the input does where that is more.
"""

from __future__ import annotations

import gc
import inspect
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np

import kerasbn

POSITIONS = ("auto", "before", "after")


def networks() -> list[str]:
    """The names of all networks."""
    names = vars(keras.applications).items()
    return sorted(name for name, member in names if inspect.isfunction(member) and name[0].isupper())


def source(name: str) -> keras.Model:
    """A network with random weights and BN that is far from fresh."""
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(96, 96, 3), classes=10, classifier_activation=None
    )
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(generator.normal(scale=0.1, size=layer.moving_mean.shape))
            layer.moving_variance.assign(np.exp(generator.normal(size=layer.moving_variance.shape)))
    return model


def outputs(model: keras.Model, inputs: Any) -> Any:
    """What a model computes at inference."""
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def outcome(model: keras.Model, position: str, inputs: Any, expected: Any, bound: float) -> str:
    """What comes of one rewrite, as a cell of the table."""
    try:
        plan = kerasbn.plan(model, position=position)
        result = plan.apply()
    except kerasbn.KerasBNError as error:
        return f"refused: {error}"
    difference = float(np.max(np.abs(outputs(result, inputs) - expected))) / float(np.max(np.abs(expected)))
    inserted = sum(edit.kind == "insert" for edit in plan.edits)
    return f"{inserted}, {difference:.0e}" if difference <= bound else f"**WRONG** by {difference:.0e}"


def row(name: str) -> str:
    """The row of one network."""
    model = source(name)
    inputs = np.random.default_rng(1).uniform(0, 255, size=(2, 96, 96, 3)).astype("float32")
    expected = outputs(model, inputs)
    nudged = outputs(model, inputs * np.float32(1 + 1e-6))
    bound = max(1e-5, 30 * float(np.max(np.abs(nudged - expected)) / np.max(np.abs(expected))))
    cells = [outcome(model, position, inputs, expected, bound) for position in POSITIONS]
    return f"| {name} | {len(model.layers)} | {' | '.join(cells)} |"


@click.command(help=__doc__)
@click.option("--network", "chosen", multiple=True, help="A network of keras.applications; all by default.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("docs/support/applications.md"), show_default=True
)
def main(chosen: tuple[str, ...], output: Path) -> None:
    rows = []
    for name in chosen or networks():
        rows.append(row(name))
        click.echo(rows[-1])
        gc.collect()
    if not chosen:
        head = "| network | layers | " + " | ".join(f'`"{position}"`' for position in POSITIONS) + " |"
        made = f"keras {keras.__version__}, kerasbn {version('kerasbn')}"
        output.write_text(
            "# keras.applications, rewritten\n\nMade by `python tools/applications.py`, which says what is measured\n"
            f"({made}). Each cell: BN inserted, and the difference.\n\n"
            + "\n".join([head, "| --- | ---: | --- | --- | --- |", *rows])
            + "\n"
        )


if __name__ == "__main__":
    main()
