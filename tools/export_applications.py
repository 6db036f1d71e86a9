"""Every network of `keras.applications`, exported in every serving format, against Keras.

    python tools/export_applications.py       # writes docs/export_applications.md, about an hour on two cores

Random weights, the smallest input that the network takes; gamma of both signs, gamma and variance
over decades. Each cell is the greatest difference from Keras's outputs, relative to the greatest
output, in the format's own runtime, at batch 1 and 3; a network that does not agree is refused by
`kerasbn.export`, and makes the tool fail.
"""

from __future__ import annotations

import gc
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras

import kerasbn
from fold_applications import networks, smallest
from kerasbn.files.formats import Format
from networks import randomize

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "saved_model": "", "litert": ".tflite"}
HEADINGS = {"onnx": "ONNX", "saved_model": "SavedModel", "litert": "LiteRT"}


def cells(name: str, formats: tuple[Format, ...]) -> list[str]:
    """The row of one network."""
    model = smallest(name)
    randomize(model)
    found = [name, str(model.input_shape[1]), f"{4 * model.count_params() / 1e6:.0f}"]
    for kind in formats:
        with tempfile.TemporaryDirectory() as folder:
            try:
                report = kerasbn.export(model, Path(folder) / f"network{SUFFIXES[kind]}")
            except kerasbn.KerasBNError as error:
                found.append(f"**{type(error).__name__}**: {error}")
            else:
                found.append(f"{report.max_error:.0e}")
    return found


@click.command(help=__doc__)
@click.option("--network", "chosen", multiple=True, help="A network of keras.applications; all by default.")
@click.option("--format", "formats", type=click.Choice(list(SUFFIXES)), multiple=True, help="A format; all by default.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("docs/export_applications.md"))
def main(chosen: tuple[str, ...], formats: tuple[Format, ...], output: Path) -> None:
    kinds = formats or tuple(kind for kind in SUFFIXES if kind in get_args(Format))
    headings = ["network", "input", "weights, MB", *(HEADINGS[kind] for kind in kinds)]
    lines = [f"| {' | '.join(headings)} |", f"| --- |{' ---: |' * (len(headings) - 1)}"]
    for name in chosen or networks():
        lines.append(f"| {' | '.join(cells(name, kinds))} |")
        click.echo(lines[-1])
        keras.backend.clear_session()
        gc.collect()
    if not (chosen or formats):
        packages = ("keras", "tensorflow", "tf2onnx", "onnxruntime", "ai-edge-litert")
        used = ", ".join(f"{package} {version(package)}" for package in packages)
        output.write_text(
            "# keras.applications, exported\n\n"
            f"Made by `python tools/export_applications.py`, which says what is measured ({used}).\n\n"
            + "\n".join(lines)
            + "\n"
        )
    if any("**" in line for line in lines):
        raise click.ClickException("Some do not agree.")


if __name__ == "__main__":
    main()
