"""Time and memory of `kerasbn.rewrite`, beside copying the model with Keras.

    python tools/bench_rewrite.py                    # all of it, about fifteen minutes
    python tools/bench_rewrite.py --skip-chains --skip-memory --network VGG19

The peer is `keras.models.clone_model(m)` and `set_weights(m.get_weights())`: what copies a model
without kerasbn, and inserts nothing.

Time. Within a repeat the three take turns, one right after another, each repeat beginning with
the next of them; the ratio to the peer is taken within the repeat, and its median over the repeats
is reported. So a machine that other work slows down for a while slows all three. One round before
them is not counted. CPU time, of all threads of the process, is given too: it hardly depends on
other work. Garbage is collected, and the result before it freed, ahead of each measurement; the
collector stays on while it runs, as it does for users.

Memory. Each measurement has a process of its own. It makes the network, runs the method once on a
small one so that all code is loaded, gives free memory back to the system (`malloc_trim`), resets
the high-water mark of its resident memory (5 into `/proc/self/clear_refs`), runs the method and
reads the mark (`VmHWM` in `/proc/self/status`). This counts what TensorFlow allocates, which
tracemalloc does not see. TensorFlow is told to allocate with malloc
(`TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1`), since its own pool keeps what building the network left free,
more than the weights of VGG19: a copy that went there would not show. Its limits: Linux with glibc
alone; users, who have the pool, see other peaks, depending on what the pool has free; the kernel
counts resident pages with an error of about a MiB; memory that is allocated and never touched does
not count; small blocks that Python and malloc hold free hide as much of what is used later.

"Held" is what the process has more than before while the result is alive. TensorFlow shares the
memory of a copied weight until one of the two is written to, so the copy is paid for at the first
training step; "held, once written" is what is held after every weight of the result was assigned
a new value.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
from rich.console import Console

import kerasbn
from reporting import Table, machine, spread

NETWORKS = ("ResNet152", "EfficientNetB7", "VGG19", "DenseNet121")
CHAINS = (100, 300, 1000, 3000)
REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "rewrite.md"
MIB = 2**20


def copy_with_keras(model: keras.Model) -> keras.Model:
    """The peer. Keras walks a model recursively, and leaves the room for that to the caller."""
    with room_for_depth(len(model.layers)):
        twin = keras.models.clone_model(model)
        twin.set_weights(model.get_weights())
    return twin


PEER, COPY, REUSE = "clone_model + set_weights", "rewrite, copy=True", "rewrite, copy=False"
METHODS: Mapping[str, Callable[[keras.Model], keras.Model]] = {
    PEER: copy_with_keras,
    COPY: lambda model: kerasbn.rewrite(model, copy=True),
    REUSE: lambda model: kerasbn.rewrite(model, copy=False),
}
AIMS: Mapping[str, float] = {COPY: 0.5, REUSE: 0.1}
"""The share of the peer's time that each is meant to take."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """One run, in seconds."""

    wall: float
    cpu: float


Timings = Mapping[str, Sequence[Timing]]
"""The runs of each method, one a repeat."""


@contextlib.contextmanager
def room_for_depth(depth: int) -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 1000 + 5 * depth))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


# Time


def timed(method: Callable[[keras.Model], keras.Model], model: keras.Model) -> Timing:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = method(model)
    timing = Timing(time.perf_counter() - wall, time.process_time() - cpu)
    del result
    return timing


def interleaved(model: keras.Model, repeats: int) -> Timings:
    """Time the methods in turns, after one round that is not counted."""
    timings: dict[str, list[Timing]] = {name: [] for name in METHODS}
    names = list(METHODS)
    for repeat in range(-1, repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            timing = timed(METHODS[name], model)
            if repeat >= 0:
                timings[name].append(timing)
    return timings


def ratios(timings: Timings, name: str, clock: str) -> list[float]:
    """A method's time over the peer's, repeat by repeat."""
    pairs = zip(timings[name], timings[PEER], strict=True)
    return [getattr(ours, clock) / getattr(theirs, clock) for ours, theirs in pairs]


def timing_rows(name: str, timings: Timings) -> Iterator[tuple[str, ...]]:
    for method, runs in timings.items():
        times = (spread([run.wall for run in runs]), spread([run.cpu for run in runs]))
        if method == PEER:
            yield name, method, *times, "1", "1", ""
        else:
            shares = (spread(ratios(timings, method, clock)) for clock in ("wall", "cpu"))
            yield name, method, *times, *shares, str(AIMS[method])


def build_network(name: str) -> keras.Model:
    return getattr(keras.applications, name)(weights=None)


def weights_mib(model: keras.Model) -> float:
    return float(sum(weight.numpy().nbytes for weight in model.weights)) / MIB


def summary_row(name: str, model: keras.Model) -> tuple[str, ...]:
    """What the network is, and what a rewrite does to it."""
    edits = [edit.kind for edit in kerasbn.plan(model).edits]
    done = ", ".join(f"{edits.count(kind)} {kind}" for kind in dict.fromkeys(edits)) or "none"
    return name, done, str(len(model.layers)), str(len(model.weights)), f"{weights_mib(model):.0f}"


def network_tables(networks: Sequence[str], repeats: int, console: Console) -> Iterator[Table]:
    summaries: list[tuple[str, ...]] = []
    rows: list[tuple[str, ...]] = []
    for name in networks:
        console.print(f"timing {name}")
        model = build_network(name)
        summaries.append(summary_row(name, model))
        rows += timing_rows(name, interleaved(model, repeats))
        del model
    yield Table(
        "Networks",
        ("network", "edits of the rewrite", "layers", "weights", "MiB of weights"),
        tuple(summaries),
        notes="What is replaced or inserted is a new layer under copy=False too; the rest it reuses.",
    )
    yield Table(
        "Time",
        ("network", "method", "seconds", "CPU seconds", "ratio to peer", "ratio, CPU", "aim"),
        tuple(rows),
        notes=f"Median (min..max) of {repeats} repeats. The ratios are taken pair by pair within a repeat.",
    )


# Chains


def build_chain(length: int) -> keras.Model:
    """A Functional chain of Dense layers, each with its activation built in."""
    with room_for_depth(length):
        inputs = tensor = keras.Input((8,))
        for _ in range(length):
            tensor = keras.layers.Dense(8, activation="relu")(tensor)
        return keras.Model(inputs, tensor)


def per_layer(length: int, runs: Sequence[Timing], clock: str) -> list[float]:
    """Milliseconds per layer of the source."""
    return [1000 * getattr(run, clock) / length for run in runs]


def exponent(shorter: int, longer: int, before: Sequence[Timing], after: Sequence[Timing]) -> float:
    """k, where the CPU time grows with the length to the power of k."""
    growth = statistics.median(run.cpu for run in after) / statistics.median(run.cpu for run in before)
    return math.log(growth) / math.log(longer / shorter)


def chain_rows(measured: Mapping[int, Timings]) -> Iterator[tuple[str, ...]]:
    for method in METHODS:
        shorter = None
        for length, timings in measured.items():
            runs = timings[method]
            growth = "" if shorter is None else f"{exponent(shorter, length, measured[shorter][method], runs):.2f}"
            times = (spread(per_layer(length, runs, clock), 2) for clock in ("wall", "cpu"))
            yield method, str(length), *times, growth
            shorter = length


def chain_table(repeats: int, console: Console) -> Table:
    measured: dict[int, Timings] = {}
    for length in CHAINS:
        console.print(f"timing a chain of {length}")
        measured[length] = interleaved(build_chain(length), repeats)
    return Table(
        "Chains of Dense(8, activation='relu')",
        ("method", "layers", "ms per layer", "CPU ms per layer", "growth"),
        tuple(chain_rows(measured)),
        notes=(
            f"Median (min..max) of {repeats} repeats. Growth is k where CPU time went up with the length to the power "
            "of k since the line above: 1 is linear, 2 is quadratic. A rewrite makes three layers of each layer here "
            "(Dense, BatchNormalization, Activation), the peer one; the time is per layer of the source. None but "
            "the last Dense can be reused, so copy=False has nothing to gain."
        ),
    )


# Memory


def status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def give_memory_back() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def small_network() -> keras.Model:
    layers = keras.layers
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.DepthwiseConv2D(3), layers.BatchNormalization()]
    stack += [layers.ReLU(), layers.Dropout(0.5), layers.GlobalAveragePooling2D(), layers.Dense(4), layers.Softmax()]
    return keras.Sequential([keras.Input((16, 16, 3)), *stack])


def write_weights(model: keras.Model) -> None:
    for weight in model.weights:
        weight.assign(weight + keras.ops.ones((), weight.dtype))


def memory_of(network: str, method: str) -> dict[str, float]:
    """MiB on top of what the process had before. For a process of its own."""
    model = build_network(network)
    write_weights(METHODS[method](small_network()))
    give_memory_back()
    before = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result = METHODS[method](model)
    peak = status_mib("VmHWM")
    give_memory_back()
    held = status_mib("VmRSS")
    write_weights(result)
    give_memory_back()
    levels = {"peak": peak, "held": held, "written": status_mib("VmRSS")}
    return {**{name: level - before for name, level in levels.items()}, "weights": weights_mib(model)}


def memory_in_process(network: str, method: str) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), "--probe", network, method]
    environment = {**os.environ, "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"Measuring the memory of {method} on {network} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def memory_rows(network: str, repeats: int) -> Iterator[tuple[str, ...]]:
    for method in METHODS:
        found = [memory_in_process(network, method) for _ in range(repeats)]
        weights = found[0]["weights"]
        levels = (spread([each[name] for each in found], 0) for name in ("peak", "held", "written"))
        share = statistics.median(each["peak"] for each in found) / weights
        yield network, method, f"{weights:.0f}", *levels, f"{share:.2f}"


def memory_table(networks: Sequence[str], repeats: int, console: Console) -> Table:
    rows: list[tuple[str, ...]] = []
    for network in networks:
        console.print(f"memory of {network}")
        rows += memory_rows(network, repeats)
    return Table(
        "Memory",
        ("network", "method", "weights", "peak", "held", "held, once written", "peak / weights"),
        tuple(rows),
        notes=(
            f"MiB on top of the source model; median (min..max) of {repeats} processes. TensorFlow shares the memory "
            'of a copied weight until one of the two is written to: "held, once written" is what is held after every '
            "weight of the result was assigned a new value, as the first training step does."
        ),
    )


# Report


def document(described: str, tables: Sequence[Table]) -> str:
    intro = (
        "Made by `python tools/bench_rewrite.py`, which says how it measures. The peer is "
        "`keras.models.clone_model(m)` and `set_weights(m.get_weights())`. The machine is shared, so the ratios say "
        f"more than the seconds. Load average at the end: {os.getloadavg()[0]:.2f}."
    )
    return "\n".join((f"# The cost of a rewrite\n\n{intro}\n\n{described}\n", *(table.markdown() for table in tables)))


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(NETWORKS), help="Only this one; repeatable.")
@click.option("--repeats", default=7, show_default=True, type=click.IntRange(1), help="Repeats of each timing.")
@click.option("--chain-repeats", default=3, show_default=True, type=click.IntRange(1), help="Repeats for chains.")
@click.option("--memory-repeats", default=3, show_default=True, type=click.IntRange(1), help="Processes for memory.")
@click.option("--skip-chains", is_flag=True, help="Leave the chains out.")
@click.option("--skip-memory", is_flag=True, help="Leave the memory out.")
@click.option("--output", default=REPORT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--probe", nargs=2, hidden=True, help="Print the memory of one method on one network, as JSON.")
def main(
    networks: tuple[str, ...],
    repeats: int,
    chain_repeats: int,
    memory_repeats: int,
    skip_chains: bool,
    skip_memory: bool,
    output: Path,
    probe: tuple[str, str] | None,
) -> None:
    """Measure time and memory of kerasbn.rewrite beside Keras's own copying of a model."""
    if probe:
        click.echo(json.dumps(memory_of(*probe)))
        return
    networks = networks or NETWORKS
    console = Console() if sys.stdout.isatty() else Console(width=160)
    described = machine()
    tables = list(network_tables(networks, repeats, console))
    if not skip_memory:
        tables.append(memory_table(networks, memory_repeats, console))
    if not skip_chains:
        tables.append(chain_table(chain_repeats, console))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(document(described, tables))
    for table in tables:
        console.print(table.rich())
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
