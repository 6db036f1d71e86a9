"""Speed of `kerasbn.layers.BatchNormalization`, beside Keras's layer and beside none.

    python tools/bench_layer.py                     # all of it, about ten minutes on two cores
    python tools/bench_layer.py --skip-layers       # whole training steps alone
    python tools/bench_layer.py --backend jax       # or torch: with another backend of Keras's

Layers. Four normalizations, each with a ReLU behind it, forward and backward in training, and
forward alone at inference; in one `tf.function`, with XLA and without, under JAX in one `jax.jit`, under torch one by
one. "None" is the four ReLUs.
"ratio" is Keras's time over kerasbn's, ReLUs and all; "ratio, BN alone" is the same with the time of
"none" taken off both, and left out where that leaves next to nothing.

Steps. A training step (`train_on_batch`, so what `fit` runs) of a ResNet-20 for small images (He et
al., 2015, section 4.2) and of a MobileNetV2, with Keras's layers, with kerasbn's, and with none.

The three take turns call by call, each round beginning with the next of them, and the ratios are
taken within the round; their median over the rounds is reported. So a machine that other work slows
down for a while slows all three. CPU time, of all threads of the process, is given behind the stroke: it hardly
depends on other work, and says nothing of a GPU. On a GPU a call ends when a number that it computed has arrived.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "--backend" in sys.argv[:-1]:  # Keras reads it as it is imported
    os.environ["KERAS_BACKEND"] = sys.argv[sys.argv.index("--backend") + 1]

import click
import keras
import numpy as np
from rich.console import Console

import kerasbn.layers
from kerasbn.graph.build import build
from kerasbn.graph.edit import Remove, apply
from kerasbn.graph.model import type_of
from kerasbn.graph.read import read
from layer_calls import Call, Make, modes, of_backend
from reporting import Table, accelerators, machine, spread

REPORTS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
NONE, PEER, OURS = "none", "Keras", "kerasbn"
NORMALIZATIONS: Mapping[str, Callable[..., keras.layers.Layer]] = {
    NONE: lambda axis, dtype: keras.layers.Identity(dtype=dtype),
    PEER: keras.layers.BatchNormalization,
    OURS: kerasbn.layers.BatchNormalization,
}
SHAPES = (
    ((32, 32, 32, 64), -1),
    ((32, 8, 8, 512), -1),
    ((64, 100), -1),
    ((512, 256), -1),
    ((32, 100, 128), -1),
    ((32, 64, 32, 32), 1),
    ((32, 512, 8, 8), 1),
)
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")
DEPTH = 4
SECONDS, FEWEST = 60, 7
"""No more rounds after so many seconds, but at least so many rounds."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """One call, in milliseconds."""

    wall: float
    cpu: float


Times = Mapping[str, Sequence[Timing]]
"""The calls of each method, one a round."""


def interleaved(calls: Mapping[str, Call], rounds: int) -> Times:
    """Time the calls in turns, after three rounds that are not counted. Slow ones get fewer rounds."""
    end = None
    times: dict[str, list[Timing]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(-3, rounds):
        if number == 0:
            end = time.perf_counter() + SECONDS
        if end is not None and number >= FEWEST and time.perf_counter() > end:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = time.perf_counter(), time.process_time()
            calls[name]()
            timing = Timing(1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu))
            if number >= 0:
                times[name].append(timing)
    return times


def compared(times: Times, over: str, under: str, less: str | None = None) -> str:
    """The time of one over that of another round by round, the median: by the clock, and in CPU time.

    The time of `less` is taken off both, if it leaves enough to compare: a fifth of itself.
    """
    if less is not None and _median(times[under]) < 1.2 * _median(times[less]):
        return ""
    return " / ".join(f"{_ratio(times, over, under, less, clock):.2f}" for clock in ("wall", "cpu"))


def _ratio(times: Times, over: str, under: str, less: str | None, clock: str) -> float:
    one, other = ([getattr(timing, clock) for timing in times[name]] for name in (over, under))
    off = [0.0] * len(one) if less is None else [getattr(timing, clock) for timing in times[less]]
    return statistics.median((a - base) / max(b - base, 1e-3) for a, b, base in zip(one, other, off, strict=True))


def _median(timings: Sequence[Timing]) -> float:
    return statistics.median(timing.wall for timing in timings)


def walls(times: Times, digits: int) -> list[str]:
    return [spread([timing.wall for timing in times[name]], digits) for name in NORMALIZATIONS]


# Layers


def layer_calls(make: Make, shape: tuple[int, ...], axis: int, dtype: str, xla: bool) -> dict[str, Call]:
    generator = np.random.default_rng(0)
    compute_dtype = keras.DTypePolicy(dtype).compute_dtype
    x, dy = (keras.ops.convert_to_tensor(generator.normal(size=shape), compute_dtype) for _ in range(2))
    calls = {}
    for name, kind in NORMALIZATIONS.items():
        layers = [kind(axis=axis, dtype=dtype) for _ in range(DEPTH)]
        for layer in layers:
            layer.build((None, *shape[1:]))
        calls[name] = make(layers, x, dy, xla=xla)
    return calls


def layer_rows(make: Make, rounds: int, console: Console) -> Iterator[tuple[str, ...]]:
    for dtype in DTYPES:
        for shape, axis in SHAPES:
            for xla in modes():
                times = interleaved(layer_calls(make, shape, axis, dtype, xla), rounds)
                row = (
                    f"{'x'.join(map(str, shape))}{' channels first' if axis == 1 else ''}",
                    f"{dtype}{', XLA' if xla and len(modes()) > 1 else ''}",
                    *walls(times, 2),
                    compared(times, PEER, OURS),
                    compared(times, PEER, OURS, less=NONE),
                )
                console.print("  ".join(row))
                yield row


def layer_tables(rounds: int, console: Console) -> Iterator[Table]:
    for title, make in zip(("Training", "Inference"), of_backend(), strict=True):
        yield Table(
            f"{title}: four normalizations, each with a ReLU",
            ("shape", "dtype", *NORMALIZATIONS, "ratio", "ratio, BN alone"),
            tuple(layer_rows(make, rounds, console)),
            notes=f"Milliseconds, median (min..max) of up to {rounds} rounds. Ratios Keras / kerasbn: wall / CPU.",
        )


# Steps


def resnet20() -> keras.Model:
    """ResNet-20 for images of 32 by 32."""
    layers = keras.layers

    def normalized(x: Any, filters: int, stride: int = 1, size: int = 3) -> Any:
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(normalized(inputs, 16))
    for filters in (16, 32, 64):
        for block in range(3):
            stride = 2 if filters > 16 and block == 0 else 1
            y = layers.ReLU()(normalized(x, filters, stride))
            shortcut = x if stride == 1 else normalized(x, filters, stride, 1)
            x = layers.ReLU()(layers.Add()([shortcut, normalized(y, filters)]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name="ResNet-20")


def mobilenet() -> keras.Model:
    return keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=10, classifier_activation=None)


NETWORKS: Mapping[str, tuple[Callable[[], keras.Model], int]] = {
    "ResNet-20, 32 images of 32x32": (resnet20, 32),
    "MobileNetV2, 16 images of 96x96": (mobilenet, 16),
}


def with_normalization(model: keras.Model, name: str) -> keras.Model:
    """A network of Keras's layers with kerasbn's in their place, or with none."""
    if name == OURS:
        return kerasbn.layers.from_keras(model)
    graph = read(model)
    sites = [site for site in graph.walk() if type_of(site.operation) is keras.layers.BatchNormalization]
    return build(apply(graph, [Remove(site.address) for site in sites if name == NONE])).model


def step_calls(source: keras.Model, batch: int, jit_compile: bool) -> dict[str, Call]:
    generator = np.random.default_rng(0)
    x = keras.ops.convert_to_tensor(generator.normal(size=(batch, *source.input_shape[1:])), "float32")
    y = keras.ops.convert_to_tensor(generator.integers(0, 10, size=batch))
    calls = {}
    for name in NORMALIZATIONS:
        model = with_normalization(source, name)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss, jit_compile=jit_compile)
        calls[name] = lambda model=model: model.train_on_batch(x, y)
    return calls


def step_table(rounds: int, compiled: Sequence[bool], console: Console) -> Table:
    rows = []
    for title, (network, batch) in NETWORKS.items():
        for jit_compile in compiled:
            times = interleaved(step_calls(network(), batch, jit_compile), rounds)
            row = (
                title,
                f"{'XLA' if jit_compile else 'no XLA'}{' (default)' if jit_compile == default_jit() else ''}",
                *walls(times, 1),
                compared(times, PEER, OURS),
                compared(times, OURS, NONE),
                compared(times, PEER, NONE),
            )
            console.print("  ".join(row))
            rows.append(row)
    return Table(
        "Whole training steps",
        ("network", "compiled", *NORMALIZATIONS, "Keras / kerasbn", "kerasbn / none", "Keras / none"),
        tuple(rows),
        notes=(
            f"Milliseconds, median (min..max) of up to {rounds} rounds, with SGD and momentum. The default is what "
            '`jit_compile="auto"` comes to on this machine. Ratios: wall / CPU time.'
        ),
    )


def default_jit() -> bool:
    """What `jit_compile="auto"` comes to here."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return bool(model.jit_compile)


# Report

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}


def document(described: str, tables: Sequence[Table], options: str) -> str:
    backend = keras.backend.backend()
    intro = (
        f"Made by `python tools/bench_layer.py --backend {backend}{options}`, which says how it measures. The machine "
        "is shared, so the ratios say more than the milliseconds. Load average at the end: "
        f"{os.getloadavg()[0]:.2f}."
    )
    title = f"The speed of the layer under {BACKENDS[backend]}{', on a GPU' if accelerators(backend) else ''}"
    head = f"# {title}\n\n{intro}\n\n{described}\n"
    return "\n".join((head, *(table.markdown() for table in tables)))


@click.command()
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(1), help="Rounds of each timing.")
@click.option("--skip-layers", is_flag=True, help="Leave the single layers out.")
@click.option("--skip-steps", is_flag=True, help="Leave the training steps out.")
@click.option("--skip-xla-steps", is_flag=True, help="Leave those out that XLA takes minutes to compile on a CPU.")
@click.option("--backend", default=keras.backend.backend(), show_default=True, type=click.Choice(list(BACKENDS)))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: docs/benchmarks/layer*.md")
def main(
    rounds: int, skip_layers: bool, skip_steps: bool, skip_xla_steps: bool, backend: str, output: Path | None
) -> None:
    """Measure kerasbn's batch normalization layer beside Keras's and beside none."""
    kind = ("" if backend == "tensorflow" else f"_{backend}") + ("_gpu" if accelerators(backend) else "")
    output = output or REPORTS / f"layer{kind}.md"
    console = Console() if sys.stdout.isatty() else Console(width=160)
    described = machine(backend)
    tables: list[Table] = []
    if not skip_steps:
        tables.append(
            step_table(rounds, [xla for xla in modes() if not (xla and skip_xla_steps and len(modes()) > 1)], console)
        )
    if not skip_layers:
        tables += layer_tables(rounds, console)
    output.parent.mkdir(parents=True, exist_ok=True)
    left_out = {"layers": skip_layers, "steps": skip_steps, "xla-steps": skip_xla_steps}
    options = "".join(f" --skip-{each}" for each, skipped in left_out.items() if skipped)
    output.write_text(document(described, tables, options))
    for table in tables:
        console.print(table.rich())
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
