"""Speed of `kerasbn.layers.BatchNormalizedRNN`, beside the layer of Keras's that it wraps.

    python tools/bench_recurrent.py

A training step (`train_on_batch`, so what `fit` runs) of one recurrent layer of 128 units on batches of 32
sequences of 100 steps of 64 features, with SGD on the squared error of all outputs or of the last one: Keras's
layer, and the same layer normalized sequence-wise; without XLA and with it. And `predict_on_batch` of the layer,
the normalized layer, and what `kerasbn.fold` makes of that.

All take turns call by call, and the ratios are taken within the round, as in `bench_layer.py`, which says what
CPU time is for. Where a GPU runs Keras's LSTM or GRU in one cuDNN kernel, these figures say nothing: the
normalized layer goes step by step there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

import kerasbn
from bench_layer import Call, Times, compared, interleaved
from kerasbn.layers import BatchNormalizedRNN
from reporting import Table, machine, spread

REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "recurrent.md"
UNITS, BATCH, STEPS, FEATURES = 128, 32, 100, 64
STOCK, NORMALIZED, FOLDED = "Keras", "normalized", "folded"
LAYERS: Mapping[str, Callable[..., keras.layers.RNN]] = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}
XLA = (False, True)


def models(kind: str, sequences: bool) -> dict[str, keras.Model]:
    """A model of one layer, and the same normalized."""
    stock, normalized = (LAYERS[kind](UNITS, return_sequences=sequences) for _ in range(2))
    made = {STOCK: stock, NORMALIZED: BatchNormalizedRNN(normalized)}
    return {name: keras.Sequential([keras.Input((STEPS, FEATURES)), layer]) for name, layer in made.items()}


def batch(sequences: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Random inputs and targets."""
    generator = np.random.default_rng(0)
    shape = (BATCH, STEPS, UNITS) if sequences else (BATCH, UNITS)
    x, y = (generator.normal(size=size) for size in ((BATCH, STEPS, FEATURES), shape))
    return tf.constant(x, "float32"), tf.constant(y, "float32")


def step_calls(kind: str, sequences: bool, xla: bool) -> dict[str, Call]:
    x, y = batch(sequences)
    calls = {}
    for name, model in models(kind, sequences).items():
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse", jit_compile=xla)
        calls[name] = lambda model=model: model.train_on_batch(x, y)
    return calls


def inference_calls(kind: str, sequences: bool, xla: bool) -> dict[str, Call]:
    x, _ = batch(sequences)
    made = models(kind, sequences)
    made[FOLDED] = kerasbn.fold(made[NORMALIZED])
    calls = {}
    for name, model in made.items():
        model.compile(jit_compile=xla)
        calls[name] = lambda model=model: model.predict_on_batch(x)
    return calls


def walls(times: Times) -> list[str]:
    return [spread([timing.wall for timing in each], 1) for each in times.values()]


def table(
    title: str, make: Callable[..., dict[str, Call]], compare: Sequence[str], rounds: int, console: Console
) -> Table:
    """The calls that `make` makes of each layer, and the time of some of them over the stock layer's."""
    rows = []
    for kind in LAYERS:
        for sequences in (False, True):
            for xla in XLA:
                times = interleaved(make(kind, sequences, xla), rounds)
                names = tuple(times)
                row = (
                    f"{kind}({UNITS}){', all outputs' if sequences else ''}",
                    "XLA" if xla else "no XLA",
                    *walls(times),
                    *(compared(times, name, STOCK) for name in compare),
                )
                console.print("  ".join(row))
                rows.append(row)
    return Table(
        title,
        ("layer", "compiled", *names, *(f"{name} / {STOCK}" for name in compare)),
        tuple(rows),
        notes=f"Milliseconds, median (min..max) of up to {rounds} rounds. Ratios: wall / CPU time.",
    )


def document(described: str, tables: Sequence[Table]) -> str:
    intro = (
        "Made by `python tools/bench_recurrent.py`, which says how it measures: batches of "
        f"{BATCH} sequences of {STEPS} steps of {FEATURES} features. The machine is shared, so the ratios say more "
        f"than the milliseconds. Load average at the end: {os.getloadavg()[0]:.2f}."
    )
    floor = (
        "The floor: the input products of all steps are there at once, for an LSTM four numbers a unit and step, for a "
        "GRU three. Normalizing them, adding the bias and handing them to the loop step by step, with the gradients of "
        "that, goes through all of them several times, where the stock layer makes each product within its "
        "step. XLA does most of that in one pass, and the loop has less to do than the stock layer's, so that with "
        "`jit_compile=True` a training step takes about as long as without normalization."
    )
    return "\n".join(
        (
            f"# The speed of normalized recurrent layers\n\n{intro}\n\n{described}\n\n{floor}\n",
            *(each.markdown() for each in tables),
        )
    )


@click.command()
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(1), help="Rounds of each timing.")
@click.option("--output", default=REPORT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(rounds: int, output: Path) -> None:
    """Measure recurrent layers that are normalized sequence-wise beside Keras's own."""
    console = Console() if sys.stdout.isatty() else Console(width=160)
    described = machine()
    tables = [
        table("Training steps", step_calls, (NORMALIZED,), rounds, console),
        table("Inference", inference_calls, (NORMALIZED, FOLDED), rounds, console),
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(document(described, tables))
    for each in tables:
        console.print(each.rich())
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
