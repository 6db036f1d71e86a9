"""What a rewrite, folding and export do to each layer of Keras, in one table.

    python tools/layer_support.py           # writes docs/support/layers.md, some minutes

Each layer stands in a small network. "Normalized" is what `kerasbn.plan` says of it, with recurrent layers normalized
sequence-wise. Then batch normalization stands behind the layer, with a linear layer ahead of it to go back into, and
ahead of the layer, with a linear layer behind it. Its gamma has both signs and it shifts what goes through; where less
is needed to fold it, the cell says so. What is done is applied and compared at inference: within 1e-5 of the greatest
output, and 1e-4 for folding. Formats are those of docs/support/served_layers.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import keras
import numpy as np
from keras import layers as L  # noqa: N812
from rich.console import Console
from rich.progress import track

import kerasbn
from kerasbn.catalog.linear import LINEAR
from served_layers import COLUMNS, rows_of
from tests.every_layer import VECTOR, every_layer
from tests.helpers import assert_same_function, random_inputs, randomize

SUPPORT = Path(__file__).parent.parent / "docs" / "support"
FAMILIES = (
    *("core", "convolutional", "rnn", "attention", "activations", "normalization", "pooling", "merging", "reshaping"),
    *("regularization", "preprocessing"),
)
"""Keras's own, as its modules are called, in the order of the table."""
OF_TEXT = ("StringLookup",)
"""Layers that yield text here, which no other layer takes."""
CONDITIONS = {"": (), ", scale > 0": ("gamma",), ", no shift": ("shift",), ", scale > 0, no shift": ("gamma", "shift")}
"""What it may take to fold, and what of batch normalization is tame then."""

Case = tuple[keras.layers.Layer, list[tuple[Any, ...]]]
"""A layer, and the shapes of its inputs."""
Make = Callable[[Any, str], keras.layers.Layer]
"""Makes a layer for a value; the text ends its name."""


def cases() -> dict[str, Case]:
    """Every layer, by the name of its class, as it is mostly used."""
    return {**every_layer(), "Dropout": (L.Dropout(0.5), [VECTOR]), "ReLU": (L.ReLU(), [VECTOR])}


def linear(value: Any, end: str) -> keras.layers.Layer:
    return L.Dense(value.shape[-1], name=f"linear{end}")


def curved(value: Any, end: str) -> keras.layers.Layer:
    """What no normalization passes."""
    return L.Activation("tanh", name=f"curved{end}")


def rectified(value: Any, end: str) -> keras.layers.Layer:
    return L.ReLU(name=f"rectified{end}")


def normalization(value: Any, end: str) -> keras.layers.Layer:
    return L.BatchNormalization(name=f"bn{end}")


def network(case: Case, ahead: Sequence[Make], behind: Sequence[Make]) -> keras.Model:
    """A layer between others."""
    layer, shapes = case
    if type(inner := getattr(layer, "layer", layer)) in LINEAR:
        inner.activation = keras.activations.linear
    given = [each if isinstance(each[0], str) else ("float32", *each) for each in shapes]
    inputs = [keras.Input(shape, dtype=dtype) for dtype, *shape in given]
    values = list(inputs)
    for index, value in enumerate(inputs):
        for make in ahead if keras.backend.is_float_dtype(value.dtype) else ():
            values[index] = make(values[index], f"_ahead{index}")(values[index])
    takes_two = isinstance(layer, (L.MultiHeadAttention, L.GroupQueryAttention))
    value = layer(*values) if takes_two else layer(_alone(values))
    for index, make in enumerate(behind):
        value = make(value, f"_behind{index}")(value)
    return keras.Model(_alone(inputs), L.Dense(3, name="head")(value))


def _alone(values: list[Any]) -> Any:
    return values if len(values) > 1 else values[0]


def normalized(case: Case) -> str:
    """What a rewrite does to a layer, or about it."""
    model = network(case, (linear,), (rectified, linear, rectified))
    plan = kerasbn.plan(randomize(model), recurrent="sequence_wise")
    _check(model, plan, 1e-5)
    found = {each.site: each for each in (*plan.skips, *plan.edits)}
    own, ahead = found.get(f"{case[0].name}#0"), found.get("linear_ahead0#0")
    if isinstance(own, kerasbn.Edit):
        return {"insert": "sequence-wise" if "steps" in own.detail else "yes", "remove": "taken out"}[own.kind]
    if own is None or own.reason is not kerasbn.Reason.COVERED:
        return f"`{own.reason.value}`" if own else ""
    assert isinstance(ahead, kerasbn.Edit)
    return "ahead of it" if " before " in ahead.detail else "behind it"


def folded(case: Case, ahead: Sequence[Make], behind: Sequence[Make]) -> str:
    """Where batch normalization beside a layer is folded to, or why it is not."""
    model = network(case, ahead, behind)
    added = [each for each in model.layers if each.name.startswith("bn_")]
    if not added:
        return ""
    reasons: list[str] = []
    for condition, tame in CONDITIONS.items():
        randomize(model)
        for each in added:
            if "gamma" in tame:
                each.gamma.assign(np.abs(each.gamma))
            if "shift" in tame:
                each.beta.assign(0 * each.beta)
                each.moving_mean.assign(0 * each.moving_mean)
        plan = kerasbn.plan(model, position="none", dropout="none", fold=True)
        _check(model, plan, 1e-4)
        kept = [each.reason.value for each in plan.skips if each.site.startswith("bn_")]
        if not kept:
            into = any(f"'{case[0].name}'" in each.detail for each in plan.edits if each.site.startswith("bn_"))
            return ("into it" if into else "past it") + condition
        reasons += kept
    return f"`{reasons[0]}`"


def _check(model: keras.Model, plan: kerasbn.Plan, tolerance: float) -> None:
    """What was planned computes the same."""
    assert_same_function(model, plan.apply(), random_inputs(model), tolerance)


def formats(outcomes: Sequence[str]) -> str:
    """Which formats a layer goes into."""
    refused = [each for each, outcome in zip(COLUMNS.values(), outcomes, strict=True) if outcome != "right"]
    return f"all but {', '.join(refused)}" if refused else "all"


def page() -> str:
    served = rows_of(SUPPORT / "served_layers.md")
    rows: dict[tuple[str, ...], list[str]] = {}
    first, second, third = cases(), cases(), cases()
    for name in track(sorted(first), console=Console(stderr=True)):
        family = type(first[name][0]).__module__.split(".")[3]
        plans = (
            lambda name=name: normalized(first[name]),
            lambda name=name: folded(second[name], (linear,), (normalization, curved)),
            lambda name=name: folded(third[name], (curved, normalization), ()),
        )
        outcome = (*("" if name in OF_TEXT else plan() for plan in plans), formats(served[name]))
        click.echo(f"{name}: {', '.join(outcome)}")
        rows.setdefault((family, *outcome), []).append(name)
    table = [
        f"| {', '.join(names)} | {' | '.join(outcome)} |"
        for (_, *outcome), names in sorted(rows.items(), key=lambda row: FAMILIES.index(row[0][0]))
    ]
    return HEAD.format(versions=f"keras {version('keras')}, kerasbn {version('kerasbn')}") + "\n".join(table) + "\n"


HEAD = """# Layers: normalized, folded, served

Made by `python tools/layer_support.py`, which says what is tried and compared ({versions}).

- *normalized*: whether the layer gets batch normalization, and for activations where it comes when the layer ahead is
  normalized. *taken out*: Dropout that the next normalization makes redundant. Nothing: it is carried over as it is.
- *BN behind it*, *BN ahead of it*: where that is folded to, into the weights of the layer itself or past it into those
  of the next linear one, and what of its scale and shift that takes. Nothing: no floats go in, or come out.
- *formats*: of `.keras`, ONNX, SavedModel, LiteRT and OpenVINO, as in [layers and formats](served_layers.md), which
  has the ways of using the layers too.
- A word in code is the [reason](../reference/reasons.md) for leaving it.

| layers | normalized | BN behind it | BN ahead of it | formats |
| --- | --- | --- | --- | --- |
"""


@click.command(help=__doc__)
def main() -> None:
    (SUPPORT / "layers.md").write_text(page())


if __name__ == "__main__":
    main()
