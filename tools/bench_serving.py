"""Latency of what `kerasbn.export` writes, beside what Keras's own `model.export` writes.

    python tools/bench_serving.py                                   # all of it, about twenty minutes
    python tools/bench_serving.py --network DenseNet121 --format onnx    # anew these rows of the page

Both files hold the same network, with batch normalization far from fresh. ONNX files run in ONNX
Runtime, SavedModels in TensorFlow, on one thread and on all. The two take turns within a repeat,
each repeat beginning with the other one, after two rounds that are not counted: so a machine that
other work slows down for a while slows both alike. The gain is Keras's time by kerasbn's within the
repeat, and its median over the repeats is reported. TensorFlow is told its number of threads when
it starts, so each number of threads has a process of its own.

`tabular` is a network of dense layers, each with an activation and batch normalization behind it. The
networks of tools/merge_branches.py and LeViT, whose batch normalization stands behind dense layers,
need the package that it names; Keras exports not all of them, and the peer is then kerasbn's own file
with `fold=False`, as it says in the table. "int8" is the quantized ONNX file beside the float32 one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console

from reporting import Table, machine, spread

NETWORKS = ("MobileNetV2", "ResNet50", "ResNet50V2", "DenseNet121", "tabular")
FORMATS = {"onnx": "onnx", "saved_model": "tf_saved_model", "int8": "onnx"}
THREADS = ("1", "all")
BATCHES = (1, 8)
MORE_BATCHES = {"tabular": (1000,)}
REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "serving.md"


# In a process of its own


def latencies(network: str, kind: str, threads: str, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of a peer's and of kerasbn's file, by batch."""
    import numpy as np
    import tensorflow as tf

    if threads != "all":
        tf.config.threading.set_intra_op_parallelism_threads(int(threads))
        tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    model = build(network)
    with tempfile.TemporaryDirectory() as folder:
        paths = exported(model, kind, Path(folder))
        load = in_tensorflow if kind == "saved_model" else in_onnxruntime
        runs = {who: load(path, threads) for who, path in paths.items()}
        generator = np.random.default_rng(0)
        found = {}
        for batch in (*BATCHES, *MORE_BATCHES.get(network, ())):
            inputs = generator.normal(size=(batch, *model.input_shape[1:])).astype("float32")
            found[str(batch)] = taking_turns(runs, inputs, repeats)
    return found


def exported(model: Any, kind: str, folder: Path) -> dict[str, str]:
    """The files to compare: the peer's by what it is called, and kerasbn's."""
    import kerasbn

    suffix = "" if kind == "saved_model" else ".onnx"
    ours, theirs = f"{folder}/ours{suffix}", f"{folder}/theirs{suffix}"
    if kind == "int8":
        import numpy as np

        examples = np.random.default_rng(0).normal(size=(32, *model.input_shape[1:])).astype("float32")
        kerasbn.export(model, theirs, verify=False)
        # Of random weights the outputs are too much alike for the error to say something.
        kerasbn.export(model, ours, quantize="int8", data=examples, verify=False)
        return {"kerasbn, float32": theirs, "kerasbn": ours}
    kerasbn.export(model, ours)
    try:
        model.export(theirs, format=FORMATS[kind], verbose=False)
        in_onnxruntime(theirs, "1") if suffix else in_tensorflow(theirs, "1")
    except Exception:  # whatever the converter or the runtime says
        kerasbn.export(model, theirs, fold=False, overwrite=True)
        return {"kerasbn, fold=False": theirs, "kerasbn": ours}
    return {"Keras": theirs, "kerasbn": ours}


def build(network: str) -> Any:
    import keras
    from keras import layers

    from networks import randomize

    if network == "tabular":
        hidden = [layer for _ in range(4) for layer in (layers.Dense(256, "relu"), layers.BatchNormalization())]
        model = keras.Sequential([keras.Input((64,)), layers.BatchNormalization(), *hidden, layers.Dense(1)])
    elif network == "LeViT-128S":
        from kecam_networks import kecam

        model = kecam.levit.LeViT128S(pretrained=None, use_distillation=False)
    elif not hasattr(keras.applications, network):
        import merge_branches

        model = merge_branches.NETWORKS[network][0]()
    else:
        model = getattr(keras.applications, network)(weights=None)
    randomize(model)
    model(keras.ops.zeros((1, *model.input_shape[1:])))  # what was never called Keras does not export
    return model


def in_onnxruntime(path: str, threads: str) -> Callable[[Any], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 0 if threads == "all" else int(threads)
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # two sessions would be in each other's way
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda inputs: session.run(None, {given.name: inputs})


def in_tensorflow(path: str, threads: str) -> Callable[[Any], Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]

    def run(inputs: Any) -> Any:
        return loaded and signature(**{name: tf.constant(inputs)})

    return run


def taking_turns(runs: Mapping[str, Callable[[Any], Any]], inputs: Any, repeats: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {who: [] for who in runs}
    for repeat in range(-2, repeats):
        for who in list(runs)[:: 1 if repeat % 2 else -1]:
            started = time.perf_counter()
            runs[who](inputs)
            if repeat >= 0:
                found[who].append(1000 * (time.perf_counter() - started))
    return found


# Report


def measured(network: str, kind: str, threads: str, repeats: int) -> dict[str, dict[str, list[float]]]:
    given = ("--network", network, "--format", kind, "--threads", threads, "--repeats", str(repeats))
    command = [sys.executable, __file__, "--alone", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{network} as {kind}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows(
    networks: Sequence[str], kinds: Sequence[str], threads: Sequence[str], repeats: int, console: Console
) -> Iterator[tuple[str, ...]]:
    for network in networks:
        for kind in kinds:
            for number in threads:
                console.print(f"measuring {network} as {kind}, threads: {number}")
                for batch, times in measured(network, kind, number, repeats).items():
                    ((peer, theirs),) = ((who, each) for who, each in times.items() if who != "kerasbn")
                    ours = times["kerasbn"]
                    gains = [their / our for our, their in zip(ours, theirs, strict=True)]
                    measured_as = (network, kind, peer, number, batch, str(repeats))
                    yield (*measured_as, spread(theirs, 2), spread(ours, 2), spread(gains, 2))


def rows_of(page: Path) -> list[tuple[str, ...]]:
    """The rows of a page."""
    lines = page.read_text().splitlines() if page.is_file() else []
    return [tuple(line.strip("| ").split(" | ")) for line in lines if line.startswith("| ")][2:]


def document(described: str, table: Table) -> str:
    intro = (
        "Made by `python tools/bench_serving.py`, which says how it measures. The machine is shared, so the gains say "
        "more than the times. Where each batch normalization stands right behind a convolution, ONNX Runtime folds it "
        "itself, and there is nothing to gain in ONNX: ResNet50, MobileNetV2."
    )
    return f"# Serving: latency of exported files\n\n{intro}\n\n{described}\n\n{table.markdown()}"


@click.command()
@click.option("--network", "networks", multiple=True, default=NETWORKS, help="See above; repeatable.")
@click.option("--format", "kinds", multiple=True, default=tuple(FORMATS), type=click.Choice(tuple(FORMATS)))
@click.option("--threads", multiple=True, default=THREADS, help="A number, or all; repeatable.")
@click.option("--repeats", default=30, show_default=True, type=click.IntRange(1))
@click.option("--output", default=REPORT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--alone", is_flag=True, hidden=True)
def main(
    networks: tuple[str, ...], kinds: tuple[str, ...], threads: tuple[str, ...], repeats: int, output: Path, alone: bool
) -> None:
    """Measure the latency of files that kerasbn.export and Keras's own export write."""
    if alone:
        print(json.dumps(latencies(networks[0], kinds[0], threads[0], repeats)))
        return
    console = Console() if sys.stdout.isatty() else Console(width=160)
    described = machine()
    headings = ("network", "format", "peer", "threads", "batch", "repeats", "ms, peer", "ms, kerasbn", "gain")
    known = {row[:5]: row for row in rows_of(output)}
    known |= {row[:5]: row for row in rows(networks, kinds, threads, repeats, console)}
    table = Table("Latency", headings, tuple(sorted(known.values())), "Median (min..max) of the repeats.")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(document(described, table))
    console.print(table.rich())
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
