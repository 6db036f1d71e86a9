"""What `kerasbn-rewrite` looks like in a terminal, as pictures in SVG.

    python tools/terminal_screens.py FOLDER    # --help, a dry run, a run, several models; 80 and 120 columns

Each is run in a terminal of that size, with colours and without.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console
from rich.text import Text

COMMANDS = {
    "help": "kerasbn-rewrite --help",
    "dry_run": "kerasbn-rewrite digits.keras --dry-run -o digits.onnx -o digits_bn.keras",
    "dry_run_resnet": "kerasbn-rewrite resnet.keras --dry-run -o resnet.onnx",
    "run": "kerasbn-rewrite digits.keras -o digits.onnx -o digits_bn.keras --force",
    "several": "kerasbn-rewrite digits.keras resnet.keras broken.keras -o served --format onnx --force",
}
WIDTHS = (80, 120)


def make_models(folder: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((64,), name="pixels")])
    for name in ("fc1", "fc2"):
        model.add(keras.layers.Dense(100, activation="relu", name=name))
        model.add(keras.layers.Dropout(0.5, name=f"{name}_dropout"))
    model.add(keras.layers.Dense(10, activation="softmax", name="digit"))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(folder / "digits.keras")
    keras.applications.ResNet50V2(weights=None, input_shape=(32, 32, 3), classes=10).save(folder / "resnet.keras")
    (folder / "broken.keras").write_bytes((folder / "digits.keras").read_bytes()[:3000])


def shown_in_a_terminal(command: str, folder: Path, columns: int, colours: bool) -> str:
    """What a command writes to a terminal; its progress, on stderr, is not in the picture."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **({} if colours else {"NO_COLOR": "1"})}
    arguments = [sys.executable, "-m", "kerasbn", *shlex.split(command)[1:]]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=theirs, stderr=errors)
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        except OSError:  # so the end of a terminal is told on Linux
            pass
        process.wait()
        errors.seek(0)
        parts.append(errors.read())
    os.close(ours)
    return b"".join(parts).decode().replace("\r\n", "\n")


def picture(text: str, command: str, columns: int) -> str:
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(f"$ {command}\n{text}"), soft_wrap=True)
    # Without the fonts that rich would have a browser fetch.
    return re.sub(r"@font-face \{.*?\}\n", "", console.export_svg(title=""), flags=re.DOTALL)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--screen", "screens", type=click.Choice(list(COMMANDS)), multiple=True, default=list(COMMANDS))
@click.option("--columns", "widths", type=int, multiple=True, default=WIDTHS)
@click.option("--colours/--no-colours", default=None)
def main(folder: Path, screens: tuple[str, ...], widths: tuple[int, ...], colours: bool | None) -> None:
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as models:
        make_models(Path(models))
        for name in screens:
            for columns in widths:
                for coloured in (True, False) if colours is None else (colours,):
                    text = shown_in_a_terminal(COMMANDS[name], Path(models), columns, coloured)
                    path = folder / f"{name}_{columns}{'' if coloured else '_plain'}"
                    path.with_suffix(".svg").write_text(picture(text, COMMANDS[name], columns))
                    path.with_suffix(".txt").write_text(text)


if __name__ == "__main__":
    main()
