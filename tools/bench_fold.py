"""Time of `kerasbn.fold`, beside copying the model with Keras, and latency of `predict` before and after.

    python tools/bench_fold.py                      # all of it, about fifteen minutes
    python tools/bench_fold.py --network ResNet50

Time to fold. The peer is `keras.models.clone_model(m)` and `set_weights(m.get_weights())`, which
copies the model and folds nothing. The two take turns within a repeat, each repeat beginning with
the other one; the ratio is taken within the repeat, and its median over the repeats is reported.
One round before them is not counted.

Latency. `predict` of one batch on the source, on a copy of it that was not folded, and on the
folded model, in turns within a repeat, after two rounds that are not counted: so a machine that
other work slows down for a while slows all alike. The ratio to the source is taken within the
repeat; the copy's shows what the measurement is good for. All run as Keras runs them by default on
the machine at hand.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
from rich.console import Console

import kerasbn
from bench_rewrite import PEER, Table, Timing, copy_with_keras, machine, spread, timed
from fold_applications import normalizations, randomize

NETWORKS = ("ResNet50", "MobileNetV2", "InceptionV3", "EfficientNetB0", "DenseNet121", "Xception")
BATCHES = (1, 8)
REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "fold.md"
AIM = 1.0
"""The share of the peer's time that folding is meant to take."""


def build_network(name: str) -> keras.Model:
    """A network whose BN is far from fresh: a fresh one is the same for all channels, which folds more easily."""
    model = getattr(keras.applications, name)(weights=None)
    randomize(model)
    return model


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


# Time to fold


def folding_times(model: keras.Model, repeats: int) -> Mapping[str, list[Timing]]:
    methods = {PEER: copy_with_keras, "fold": kerasbn.fold}
    timings: dict[str, list[Timing]] = {name: [] for name in methods}
    for repeat in range(-1, repeats):
        for name in list(methods)[:: 1 if repeat % 2 else -1]:
            timing = timed(methods[name], model)
            if repeat >= 0:
                timings[name].append(timing)
    return timings


def folding_rows(name: str, timings: Mapping[str, list[Timing]]) -> Iterator[tuple[str, ...]]:
    for method, runs in timings.items():
        times = (spread([run.wall for run in runs]), spread([run.cpu for run in runs]))
        if method == PEER:
            yield name, method, *times, "1", "1", ""
        else:
            peer = timings[PEER]
            wall = ratios([run.wall for run in runs], [run.wall for run in peer])
            cpu = ratios([run.cpu for run in runs], [run.cpu for run in peer])
            yield name, method, *times, spread(wall), spread(cpu), str(AIM)


# Latency


def latency(model: keras.Model, inputs: np.ndarray) -> float:
    """Milliseconds of one `predict`."""
    started = time.perf_counter()
    model.predict(inputs, batch_size=len(inputs), verbose=0)
    return 1000 * (time.perf_counter() - started)


def latencies(models: Mapping[str, keras.Model], inputs: np.ndarray, repeats: int) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(-2, repeats):
        first = repeat % len(models)
        for name in [*models][first:] + [*models][:first]:
            taken = latency(models[name], inputs)
            if repeat >= 0:
                found[name].append(taken)
    return found


def latency_rows(network: str, batch: int, found: Mapping[str, list[float]]) -> Iterator[tuple[str, ...]]:
    source = found["source"]
    for name, runs in found.items():
        yield network, name, str(batch), spread(runs, 1), "1" if name == "source" else spread(ratios(runs, source))


# Report


def measured(networks: Sequence[str], repeats: int, latency_repeats: int, console: Console) -> Iterator[Table]:
    summaries: list[tuple[str, ...]] = []
    times: list[tuple[str, ...]] = []
    served: list[tuple[str, ...]] = []
    for name in networks:
        console.print(f"measuring {name}")
        model = build_network(name)
        times += folding_rows(name, folding_times(model, repeats))
        models = {"source": model, "copy": copy_with_keras(model), "folded": kerasbn.fold(model)}
        layers = (str(len(models[key].layers)) for key in ("source", "folded"))
        summaries.append((name, f"{len(normalizations(model))} -> {len(normalizations(models['folded']))}", *layers))
        for batch in BATCHES:
            inputs = np.random.default_rng(0).normal(size=(batch, *model.input_shape[1:])).astype("float32")
            served += latency_rows(name, batch, latencies(models, inputs, latency_repeats))
        del model, models
    yield Table("Networks", ("network", "BN", "layers before", "layers after"), tuple(summaries))
    yield Table(
        "Time to fold",
        ("network", "method", "seconds", "CPU seconds", "ratio to peer", "ratio, CPU", "aim"),
        tuple(times),
        notes=f"Median (min..max) of {repeats} repeats.",
    )
    yield Table(
        "Latency of `predict`",
        ("network", "model", "batch", "milliseconds", "ratio to source"),
        tuple(served),
        notes=f"Median (min..max) of {latency_repeats} repeats.",
    )


def document(described: str, tables: Sequence[Table]) -> str:
    intro = (
        "Made by `python tools/bench_fold.py`, which says how it measures. The machine is shared, so the ratios say "
        f"more than the times. Load average at the end: {os.getloadavg()[0]:.2f}."
    )
    return "\n".join((f"# Folding: its cost and its gain\n\n{intro}\n\n{described}\n", *(t.markdown() for t in tables)))


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(NETWORKS), help="Only this one; repeatable.")
@click.option("--repeats", default=7, show_default=True, type=click.IntRange(1), help="Repeats of folding.")
@click.option("--latency-repeats", default=25, show_default=True, type=click.IntRange(1), help="Repeats of predict.")
@click.option("--output", default=REPORT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(networks: tuple[str, ...], repeats: int, latency_repeats: int, output: Path) -> None:
    """Measure the time of kerasbn.fold beside Keras's own copying, and the latency of what comes out."""
    console = Console() if sys.stdout.isatty() else Console(width=160)
    described = machine()
    tables = list(measured(networks or NETWORKS, repeats, latency_repeats, console))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(document(described, tables))
    for table in tables:
        console.print(table.rich())
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
