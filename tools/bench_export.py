"""Memory and time of `kerasbn.export`, beside Keras's own `model.export`.

    python tools/bench_export.py                                    # all of it, about ten minutes
    python tools/bench_export.py --network ResNet50 --format onnx

Each export is the only one of its process, in which the network was made first, with batch
normalization far from fresh. The peak is the most memory that the process held while it exported,
above what it held before, packages that the export imports included; the time is that of the call.
No process gets more than three quarters of the machine's memory: what needs more has failed.
kerasbn verifies what it writes, Keras does not: a third way leaves that out. The ways take turns,
and the least peak and time of the repeats are reported: other work on the machine only adds.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console

from reporting import Table, machine

NETWORKS = ("MobileNetV2", "ResNet50", "VGG16")
FORMATS = {"onnx": "model.onnx", "saved_model": "model"}
KERAS = "keras"
WAYS: Mapping[str, Mapping[str, Any]] = {KERAS: {}, "kerasbn": {}, "kerasbn, not verified": {"verify": False}}
REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "export.md"


# In a process of its own


def export(network: str, kind: str, way: str) -> dict[str, float]:
    import keras

    import kerasbn
    from networks import randomize

    model = getattr(keras.applications, network)(weights=None)
    randomize(model)
    model(keras.ops.zeros((1, *model.input_shape[1:])))  # what was never called Keras does not export
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FORMATS[kind]
        before, started = forget_peak(), time.perf_counter()
        if way == KERAS:
            given = {"format": "onnx"} if kind == "onnx" else {"format": "tf_saved_model"}
            model.export(str(path), verbose=False, **given)
        else:
            kerasbn.export(model, path, **WAYS[way])
        seconds, peak = time.perf_counter() - started, memory("VmHWM")
        files = [file for file in (path, *path.rglob("*")) if file.is_file()]
        written = sum(file.stat().st_size for file in files)
    weights = sum(weight.nbytes for weight in model.get_weights())
    return {"peak": peak - before, "seconds": seconds, "weights": weights, "written": written}


def memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def forget_peak() -> int:
    """Let the peak begin anew, at what the process holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


# Report


def measured(network: str, kind: str, way: str) -> dict[str, float] | None:
    """What an export took, or `None` if it failed."""
    command = [sys.executable, __file__, "--alone", "--network", network, "--format", kind, "--way", way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])


def rows(networks: Sequence[str], kinds: Sequence[str], repeats: int, console: Console) -> Iterator[tuple[str, ...]]:
    for network in networks:
        for kind in kinds:
            console.print(f"measuring {network} as {kind}")
            turns = [{way: measured(network, kind, way) for way in WAYS} for _ in range(repeats)]
            for way in WAYS:
                yield network, f"{kind}, {way}", *cells([turn[way] for turn in turns])


def cells(runs: Sequence[dict[str, float] | None]) -> tuple[str, ...]:
    done = [run for run in runs if run is not None]
    if len(done) < len(runs):
        return "", "", "failed", ""
    peak, seconds = (min(run[key] for run in done) for key in ("peak", "seconds"))
    return f"{done[0]['weights'] / 1e9:.2f}", f"{done[0]['written'] / 1e9:.2f}", f"{peak / 1e9:.2f}", f"{seconds:.1f}"


def document(described: str, table: Table) -> str:
    intro = "Made by `python tools/bench_export.py`, which says how it measures. The machine is shared."
    return f"# Export: memory and time\n\n{intro}\n\n{described}\n\n{table.markdown()}"


@click.command()
@click.option("--network", "networks", multiple=True, default=NETWORKS, help="Of keras.applications; repeatable.")
@click.option("--format", "kinds", multiple=True, default=tuple(FORMATS), type=click.Choice(tuple(FORMATS)))
@click.option("--repeats", default=2, show_default=True, type=click.IntRange(1))
@click.option("--output", default=REPORT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--alone", is_flag=True, hidden=True)
@click.option("--way", hidden=True)
def main(
    networks: tuple[str, ...], kinds: tuple[str, ...], repeats: int, output: Path, alone: bool, way: str | None
) -> None:
    """Measure the peak memory and the time of kerasbn.export beside Keras's own export."""
    if alone:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_DATA, (3 * available // 4,) * 2)
        print(json.dumps(export(networks[0], kinds[0], str(way))))
        return
    console = Console() if sys.stdout.isatty() else Console(width=160)
    described = machine()
    headings = ("network", "written as", "GB of weights", "GB written", "GB at the peak", "seconds")
    table = Table(
        "Exports", headings, tuple(rows(networks, kinds, repeats, console)), f"The least of {repeats} repeats."
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(document(described, table))
    console.print(table.rich())
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
