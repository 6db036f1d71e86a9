"""Every network of `keras.applications`, exported in every serving format, against Keras.

    python tools/export_applications.py            # writes docs/support/export_applications.md, about half an hour
    python tools/export_applications.py --again    # the rows that are there already as well

The page is written network by network, and goes on where it was cut.

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

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras

import kerasbn
from fold_applications import networks, smallest
from kerasbn.files.formats import Format
from networks import randomize

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "saved_model": "", "litert": ".tflite"}
HEADINGS = ("network", "input", "weights, MB", "ONNX", "SavedModel", "LiteRT")


def cells(name: str) -> list[str]:
    """The row of one network."""
    model = smallest(name)
    randomize(model)
    found = [name, str(model.input_shape[1]), f"{4 * model.count_params() / 1e6:.0f}"]
    for kind in SUFFIXES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                report = kerasbn.export(model, Path(folder) / f"network{SUFFIXES[kind]}")
            except kerasbn.KerasBNError as error:
                found.append(f"**{type(error).__name__}**: {error}")
            else:
                found.append(f"{report.max_error:.0e}")
    return found


def page(rows: dict[str, str]) -> str:
    packages = ("keras", "tensorflow", "tf2onnx", "onnxruntime", "ai-edge-litert")
    used = ", ".join(f"{package} {version(package)}" for package in packages)
    intro = f"Made by `python tools/export_applications.py`, which says what is measured ({used})."
    lines = (f"| {' | '.join(HEADINGS)} |", f"| --- |{' ---: |' * (len(HEADINGS) - 1)}", *rows.values())
    return "\n".join(("# keras.applications, exported", "", intro, "", *lines)) + "\n"


def rows_of(path: Path) -> dict[str, str]:
    """The rows of a page, by the name of the network."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}


@click.command(help=__doc__)
@click.option("--network", "chosen", multiple=True, help="A network of keras.applications; all by default.")
@click.option("--again", is_flag=True, help="Measure those again that the page has.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("docs/support/export_applications.md"))
def main(chosen: tuple[str, ...], again: bool, output: Path) -> None:
    known = rows_of(output)
    for name in chosen or networks():
        if name not in known or again:
            known[name] = f"| {' | '.join(cells(name))} |"
            click.echo(known[name])
            rows = {each: known[each] for each in networks() if each in known}
            output.write_text(page(rows))
            keras.backend.clear_session()
            gc.collect()
    if wrong := [name for name, row in known.items() if "**" in row]:
        raise click.ClickException(f"These do not agree: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
