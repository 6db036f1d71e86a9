"""Time of `kerasbn-rewrite`: ten models in one run, beside each in a run of its own; `--help` and `--version`.

    python tools/bench_command.py    # about five minutes

Each run is a process of its own. The bound for the ten is one and a half times what the slowest takes alone, and a
second for each. `--help` and `--version` are to answer within .3 s.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console
from rich.progress import track

from reporting import Table, machine, spread

REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "command.md"


def make_models(folder: Path) -> list[Path]:
    """Ten of them: three of `keras.applications`, and seven of a kind that people train themselves."""
    import keras
    from keras import layers

    from networks import randomize

    models = [getattr(keras.applications, name)(weights=None) for name in ("MobileNet", "MobileNetV2", "ResNet50")]
    for number in range(7):
        inputs = keras.Input((32, 32, 3))
        outputs = inputs
        for block in range(2 + number):
            outputs = layers.Conv2D(16 * (block + 1), 3, padding="same", activation="relu")(outputs)
            outputs = layers.MaxPooling2D(padding="same")(outputs)
            outputs = layers.Dropout(0.2)(outputs)
        outputs = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(outputs))
        models.append(keras.Model(inputs, outputs, name=f"small_{number}"))
    paths = []
    for model in models:
        randomize(model)
        paths.append(folder / f"{model.name}.keras")
        model.save(paths[-1])
    return paths


@dataclasses.dataclass(frozen=True, order=True)
class Time:
    """What a run took: by the clock, and of the CPU, which other work on the machine adds less to."""

    clock: float
    cpu: float


def time_of(arguments: Sequence[object]) -> Time:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "kerasbn", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Time(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@click.command()
@click.option("--format", "kind", default="onnx", show_default=True)
def main(kind: str) -> None:
    console = Console()
    on = machine()
    answers = {flag: [time_of([flag]).clock for _ in range(10)] for flag in ("--help", "--version")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_models(folder)
        options = ("--format", kind, "--force", "-q")
        alone = {path.stem: time_of([path, "-o", folder / "alone", *options]) for path in track(paths, console=console)}
        together = time_of([*paths, "-o", folder / "together", *options])
    clocks, cpus = [each.clock for each in alone.values()], [each.cpu for each in alone.values()]
    rows = {
        **alone,
        "sum of these": Time(sum(clocks), sum(cpus)),
        "all in one run": together,
        "bound: 1.5 x the slowest, and 1 s for each": Time(1.5 * max(clocks) + 10, 1.5 * max(cpus) + 10),
    }
    tables = [
        Table(
            f"Ten models, written as {kind}",
            ("run", "models", "seconds", "of the CPU"),
            tuple(
                (what, "1" if what in alone else "10", f"{each.clock:.1f}", f"{each.cpu:.1f}")
                for what, each in rows.items()
            ),
            "What else goes on on the machine adds to the seconds, and less to those of the CPU.",
        ),
        Table(
            "Answers without Keras",
            ("option", "", "seconds: median (least..most) of ten"),
            tuple((f"`{flag}`", "", spread(each)) for flag, each in answers.items()),
        ),
    ]
    for table in tables:
        console.print(table.rich())
    title = f"# The command line\n\n`tools/bench_command.py`. {(__doc__ or '').splitlines()[0]}\n\n{on}\n"
    REPORT.write_text("\n".join((title, *(table.markdown() for table in tables))))


if __name__ == "__main__":
    main()
