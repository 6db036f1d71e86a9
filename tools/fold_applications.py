"""Every network of `keras.applications` with batch normalization, folded: right, and what is left.

    python tools/fold_applications.py       # writes docs/support/fold.md, some minutes

Random weights, the smallest input that the network takes; gamma of both signs, gamma and variance
over decades. "Difference" is the greatest difference at inference from the source's outputs,
relative to the greatest output; the bound is 1e-4, or 30 times what a relative change of 1e-6 in
the input does where that is more.
"""

from __future__ import annotations

import gc
import inspect
import os
from collections import Counter
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np

import kerasbn
from networks import normalizations, randomize, verdict

SIZES = (32, 71, 75, 96)
"""The sides of inputs to try, the smallest one first."""


def networks() -> list[str]:
    """The names of all networks."""
    names = vars(keras.applications).items()
    return sorted(name for name, member in names if inspect.isfunction(member) and name[0].isupper())


def smallest(name: str) -> keras.Model:
    """A network for the smallest input that it takes."""
    for size in SIZES:
        try:
            return getattr(keras.applications, name)(
                weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
            )
        except ValueError:
            keras.backend.clear_session()
    raise click.ClickException(f"{name} takes no input of the sides {SIZES}.")


def row(name: str) -> str | None:
    """The row of one network; `None` if it has no batch normalization."""
    model = smallest(name)
    before = len(normalizations(model))
    if not before:
        return None
    randomize(model)
    plan = kerasbn.plan(model, position="none", dropout="none", fold=True)
    folded = plan.apply()
    left = len(normalizations(folded))
    reasons = Counter(skip.reason.value for skip in plan.skips)
    inputs = np.random.default_rng(1).uniform(0, 255, size=(2, *model.input_shape[1:])).astype("float32")
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or ""
    right = verdict(model, folded, inputs)
    return f"| {name} | {model.input_shape[1]} | {before} | {before - left} | {left} | {why} | {right} |"


@click.command(help=__doc__)
@click.option("--network", "chosen", multiple=True, help="A network of keras.applications; all by default.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("docs/support/fold.md"), show_default=True)
def main(chosen: tuple[str, ...], output: Path) -> None:
    rows = []
    for name in chosen or networks():
        if made := row(name):
            rows.append(made)
            click.echo(made)
        gc.collect()
    if not chosen:
        used = f"keras {keras.__version__}, kerasbn {version('kerasbn')}"
        output.write_text(
            "# keras.applications, folded\n\nMade by `python tools/fold_applications.py`, which says what is measured\n"
            f"({used}).\n\n"
            + "\n".join(
                [
                    "| network | input | BN | folded | left | why | difference |",
                    "| --- | ---: | ---: | ---: | ---: | --- | ---: |",
                    *rows,
                ]
            )
            + "\n\nWhat is left in DenseNet and ResNetV2 stands ahead of an activation, on a value that other layers\n"
            "use as it is: the sum or concatenation that goes on to the next block. The first one of ResNetV2\n"
            "stands behind padding and max pooling, and ahead of an activation.\n\n"
            "Networks of parallel linear branches are in [a table of their own](merge_branches.md).\n"
        )


if __name__ == "__main__":
    main()
