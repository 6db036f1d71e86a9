"""Every layer of Keras, and more than that, in every format: right, or refused by name.

    python tools/served_layers.py                      # writes docs/support/served_layers.md, some twenty minutes
    python tools/served_layers.py GRU                  # anew the rows whose name holds this

Each is a small model with random weights, written with `kerasbn.export`, read again by the format's own
runtime and compared with Keras: at batch 1 and 3, and at two sizes of every axis that is open. "right"
is within 1e-4 of the greatest output, or within what float32 makes of it. "refused" is an error that
names the layer, and leaves nothing behind. Whatever else comes is shown as it is, and makes the tool
fail.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import keras
from keras import layers as L  # noqa: N812
from rich.console import Console
from rich.progress import track

import kerasbn
from kerasbn.files.formats import Format
from tests.every_layer import BY_RANK, IMAGE, STEPS, VECTOR, every_layer, model_with
from tests.exporters.cases import CASES
from tests.helpers import randomize

ROOT = Path(__file__).parent.parent
SUFFIXES = {"keras": ".keras", "onnx": ".onnx", "saved_model": "", "litert": ".tflite", "openvino": ".xml"}
COLUMNS: dict[Format, str] = {
    "keras": ".keras",
    "onnx": "ONNX",
    "saved_model": "SavedModel",
    "litert": "LiteRT",
    "openvino": "OpenVINO",
}


def _one(layer: keras.layers.Layer, shape: tuple[int | None, ...] = VECTOR, dtype: str | None = None) -> keras.Model:
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layer(inputs))


def _tokens(*chain: keras.layers.Layer, steps: int | None = 7) -> keras.Model:
    inputs = x = keras.Input((steps,), dtype="int32", name="tokens")
    for layer in (L.Embedding(10, 6, mask_zero=True), *chain):
        x = layer(x)
    return keras.Model(inputs, x)


def _quantized(mode: str) -> keras.Model:
    inputs = keras.Input((7,), dtype="int32")
    x = L.Dense(8, activation="relu", name="layer")(L.GlobalAveragePooling1D()(L.Embedding(10, 16)(inputs)))
    model = randomize(keras.Model(inputs, L.Dense(4)(x)))
    model.quantize(mode)
    return model


def _of_policy(policy: str) -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 3, activation="silu", dtype=policy)(inputs)
    x = L.GlobalAveragePooling2D(dtype=policy)(L.BatchNormalization(dtype=policy)(x))
    return keras.Model(inputs, L.Dense(3, activation="softmax", dtype=policy)(x))


def _variants() -> dict[str, Callable[[], keras.Model]]:
    """Ways of using layers that are translated in ways of their own."""
    found: dict[str, Callable[[], keras.Model]] = {}
    for rank in (1, 2, 3):
        shape, open_shape = BY_RANK[rank], (*(None,) * rank, BY_RANK[rank][-1])
        conv, transposed = getattr(L, f"Conv{rank}D"), getattr(L, f"Conv{rank}DTranspose")
        found |= {
            f"Conv{rank}D, dilated": lambda conv=conv, shape=shape: _one(conv(4, 2, dilation_rate=2), shape),
            f"Conv{rank}D, strided, same": lambda conv=conv, shape=shape: _one(
                conv(4, 3, strides=2, padding="same"), shape
            ),
            f"Conv{rank}D, any size": lambda conv=conv, shape=open_shape: _one(conv(4, 3, padding="same"), shape),
            f"Conv{rank}DTranspose, strided": lambda layer=transposed, shape=shape: _one(layer(4, 3, strides=2), shape),
        }
    found["Conv1D, causal"] = lambda: _one(L.Conv1D(4, 3, padding="causal"), STEPS)
    found["Conv2D, grouped"] = lambda: _one(L.Conv2D(6, 3, groups=3), IMAGE)
    found["Conv2D, channels first"] = lambda: _one(L.Conv2D(4, 3, data_format="channels_first"), (3, 8, 8))
    for rank, shape in {2: VECTOR, 3: STEPS, 4: IMAGE, 5: BY_RANK[3]}.items():
        found[f"BatchNormalization, rank {rank}"] = lambda shape=shape: _one(L.BatchNormalization(), shape)
        if rank > 2:
            found[f"BatchNormalization, rank {rank}, axis 1"] = lambda shape=shape: _one(
                L.BatchNormalization(axis=1), shape
            )
        found[f"kerasbn's BatchNormalization, rank {rank}"] = lambda shape=shape: _one(
            kerasbn.layers.BatchNormalization(), shape
        )
    for kind in (L.LSTM, L.GRU, L.SimpleRNN):
        name = kind.__name__
        found |= {
            f"{name}, masked": lambda kind=kind: _tokens(kind(4, return_sequences=True), kind(3)),
            f"{name}, masked, any length": lambda kind=kind: _tokens(kind(4), steps=None),
            f"{name}, any length": lambda kind=kind: _one(kind(4, return_sequences=True), (None, 6)),
            f"{name}, both ways": lambda kind=kind: _one(L.Bidirectional(kind(4)), STEPS),
            f"{name}, normalized": lambda kind=kind: _one(kerasbn.layers.BatchNormalizedRNN(kind(4)), STEPS),
            f"{name}, stateful": lambda kind=kind: keras.Sequential(
                [keras.Input(batch_shape=(2, *STEPS)), kind(4, stateful=True)]
            ),
        }
    for name in ("gelu", "silu", "mish", "celu", "elu", "selu", "hard_silu", "softplus", "log_softmax", "glu", "relu6"):
        found[f"Activation, {name}"] = lambda name=name: _one(L.Activation(name))
    found |= {
        "UpSampling2D, bilinear": lambda: _one(L.UpSampling2D(2, interpolation="bilinear"), IMAGE),
        "Resizing, any size": lambda: _one(L.Resizing(6, 6), (None, None, 3)),
        "MultiHeadAttention, causal, any length": CASES["attention"][0],
        "TextVectorization": lambda: _one(
            L.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4), (1,), "string"
        ),
        "StringLookup, of words": lambda: _one(L.StringLookup(vocabulary=["a", "b"]), (1,), "string"),
        "Hashing, of words": lambda: _one(L.Hashing(5), (1,), "string"),
        "TimeDistributed, convolution": lambda: _one(L.TimeDistributed(L.Conv2D(2, 3)), (4, *IMAGE)),
        "TimeDistributed, any length": lambda: _one(L.TimeDistributed(L.Dense(2)), (None, 6)),
    }
    for mode in ("int8", "int4", "float8"):
        found[f"Dense and Embedding, {mode}" if mode != "float8" else "Dense, float8"] = lambda mode=mode: _quantized(
            mode
        )
    for policy in ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"):
        found[f"convolutional network, {policy}"] = lambda policy=policy: _of_policy(policy)
    return found


def models() -> dict[str, Callable[[], keras.Model]]:
    """How to build each model, by its name in the table."""
    return {
        **{name: lambda name=name: model_with(name) for name in sorted(every_layer())},
        **_variants(),
        **{f"model: {name}": build for name, (build, *_) in CASES.items()},
    }


def outcome(build: Callable[[], keras.Model], kind: Format, folder: Path) -> str:
    """What comes of a model in a format."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    try:
        model = build()
        if not any(layer.dtype_policy.quantization_mode for layer in model._flatten_layers()):
            randomize(model)
    except Exception as error:
        return f"not built: {type(error).__name__}: {str(error)[:80]}"
    path = folder / f"model{SUFFIXES[kind]}"
    layers = model._flatten_layers()
    names = [called for layer in layers for called in (repr(layer.name), f"{layer.name}/", f"{type(layer).__name__}.")]
    try:
        kerasbn.export(model, path, format=kind, overwrite=True)
    except kerasbn.KerasBNError as error:
        return "refused" if any(name in str(error) for name in names) else f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "right"


def rows_of(path: Path) -> dict[str, list[str]]:
    """The rows of a page, by the name of the model."""
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    return {name: cells for name, *cells in rows}


def page(rows: dict[str, list[str]]) -> str:
    table = [
        f"| model | {' | '.join(COLUMNS.values())} |",
        f"| --- | {' | '.join('---' for _ in COLUMNS)} |",
        *(f"| {name} | {' | '.join(each.replace('|', '/') for each in cells)} |" for name, cells in rows.items()),
    ]
    counts = [Counter(cells[column] for cells in rows.values()) for column in range(len(COLUMNS))]
    summary = "\n".join(
        f"- {heading}: {count['right']} right, {count['refused']} refused by name"
        + (f", {others} neither" if (others := len(rows) - count["right"] - count["refused"]) else "")
        for heading, count in zip(COLUMNS.values(), counts, strict=True)
    )
    names = ("keras", "tensorflow", "tf2onnx", "onnxruntime", "ai-edge-litert", "openvino")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    return HEAD.format(count=len(rows), packages=packages, summary=summary) + "\n".join(table) + "\n"


@click.command(help=__doc__)
@click.argument("containing", default="")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "docs" / "support" / "served_layers.md")
def main(containing: str, output: Path) -> None:
    warnings.simplefilter("ignore")
    known, every = rows_of(output), models()
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: build for name, build in every.items() if containing in name}
        for name, build in track(chosen.items(), console=Console(stderr=True)):
            known[name] = [outcome(build, kind, Path(folder)) for kind in COLUMNS]
            click.echo(f"{name}: {', '.join(known[name])}")
    rows = {name: known[name] for name in every if name in known}
    output.write_text(page(rows))
    if any(cell not in ("right", "refused") for cells in rows.values() for cell in cells):
        raise click.ClickException("Some are neither right nor refused.")


HEAD = """# Layers and formats

What `kerasbn.export` makes of {count} small models: every layer of Keras, the ways of using them that
formats translate in ways of their own, and whole models. *right*: the file, read by the format's own
runtime, is within 1e-4 of Keras (or as near as Keras in float32 is to itself in float64), at batch 1
and 3 and at two sizes of every open axis. *refused*: one line names the layer, and nothing is written.

{summary}

`tools/served_layers.py` made this table with {packages}.

"""

if __name__ == "__main__":
    main()
