"""Kill what writes a model at random moments, and see what is there: `docs/support/atomic_writes.md`.

    python tools/kill_writes.py --tries 200        # half an hour; POSIX alone

A process that has Keras loaded is forked for each try. It writes one version of a model over another until it is
killed: every second time at any moment, every other one while what it wrote is moved into place. All weights of a
version have its number for a value, so that a file tells which one it is, and whether it is of one piece.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import h5py
import keras
import numpy as np
import onnx
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import kerasbn
from kerasbn import exporters  # noqa: F401  # loaded ahead of the forks
from kerasbn.exporters import onnx_file
from kerasbn.files import staging
from kerasbn.files.formats import companions_of, format_of
from kerasbn.files.staging import check_target

PAGE = Path(__file__).parent.parent / "docs" / "support" / "atomic_writes.md"
OUTCOMES = ("old", "new", "neither, until the next run looks", "anything else")


def of_keras(path: Path) -> set[float]:
    import zipfile

    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as content, h5py.File(content) as file:
        found: set[float] = set()
        file.visititems(lambda _, item: found.update(np.unique(item)) if isinstance(item, h5py.Dataset) else None)
        return found


def of_onnx(path: Path) -> set[float]:
    graph = onnx.load(path).graph
    arrays = [onnx.numpy_helper.to_array(each) for each in graph.initializer]
    return {float(value) for each in arrays if each.dtype == np.float32 for value in np.unique(each)}


def of_saved_model(path: Path) -> set[float]:
    SavedModel.FromString((path / "saved_model.pb").read_bytes())
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    names = [name for name, kind in reader.get_variable_to_dtype_map().items() if kind == tf.float32]
    return {float(value) for name in names for value in np.unique(reader.get_tensor(name))}


KINDS: Mapping[str, tuple[str, Callable[[Path], set[float]]]] = {
    "`.keras`": ("model.keras", of_keras),
    "ONNX with external data": ("model.onnx", of_onnx),
    "folder of a SavedModel": ("model", of_saved_model),
}


def versions(path: Path, pipe: int) -> None:
    """Write one version after another, and tell of each when it begins, is moved, and is there."""
    onnx_file.LARGEST = 0  # weights are put beside the file whatever their size
    move = staging.move_into_place

    def moved(*args: object) -> None:
        os.write(pipe, b"m")
        move(*args)  # type: ignore[arg-type]

    staging.move_into_place = moved
    model = keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(256) for _ in range(4))])
    version = int(next(iter(KINDS_BY_NAME[path.name](path)), 0)) if os.path.lexists(path) else 0
    while True:
        version += 1
        model.set_weights([np.full_like(weight, version) for weight in model.get_weights()])
        os.write(pipe, b"b")
        kerasbn.export(model, path, fold=False, verify=False, overwrite=True)
        os.write(pipe, b"e")


KINDS_BY_NAME = dict(KINDS.values())


def messages(pipe: int, until: float) -> Iterator[tuple[str, float]]:
    while (left := until - time.perf_counter()) > 0:
        ready, _, _ = select.select([pipe], [], [], left)
        if not ready or not (content := os.read(pipe, 1)):
            return
        yield content.decode(), time.perf_counter()


def killed(path: Path, chance: random.Random, in_the_move: bool) -> tuple[int, int]:
    """How many versions were begun and were there when the writer was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            versions(path, writing)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(writing)
    begun = done = 0
    started = moved = 0.0
    lasted, moving = 1.0, 0.05
    deadline = time.perf_counter() + 120
    for message, now in messages(reading, deadline):
        begun, done = begun + (message == "b"), done + (message == "e")
        match message:
            case "b":
                started = now
            case "m":
                moved = now
            case "e":
                lasted, moving = now - started, now - moved
        if done >= 2 and message == ("m" if in_the_move else "b"):
            break
    else:
        raise SystemExit("the writer is gone")
    until = time.perf_counter() + chance.uniform(0, moving if in_the_move else lasted)
    for message, _ in messages(reading, until):
        begun, done = begun + (message == "b"), done + (message == "e")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for message, _ in messages(reading, time.perf_counter() + 1):
        begun, done = begun + (message == "b"), done + (message == "e")
    os.close(reading)
    return begun, done


def found(path: Path) -> int | None:
    """The version that is there; `None` where there is none, -1 for what is not of one piece."""
    if not os.path.lexists(path):
        return None
    try:
        (version,) = KINDS_BY_NAME[path.name](path)
    except Exception:
        return -1
    return int(version)


def tried(name: str, tries: int) -> Counter[str]:
    file, _ = KINDS[name]
    outcomes: Counter[str] = Counter()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        known = 0
        for number in range(tries):
            begun, done = killed(path, chance, in_the_move=bool(number % 2))
            seen = found(path)
            left = len(list(Path(folder).glob(".*")))
            check_target(path, overwrite=True, companions=companions_of(format_of(path), path))
            after = found(path)
            allowed = {known + done: "old", known + begun: "new"}
            outcome = OUTCOMES[2] if seen is None else allowed.get(seen, OUTCOMES[3])
            litter = {each.name for each in Path(folder).iterdir()} - {file, f"{file}.data"}
            if after not in allowed or litter or left > 1:
                outcome = OUTCOMES[3]
                print(f"{name}: {seen} and then {after} where {known}+{done} and {known}+{begun} are meant; {litter}")
            outcomes[outcome] += 1
            known = after or 0
    print(name, dict(outcomes), flush=True)
    return outcomes


@click.command()
@click.option("--tries", default=200, show_default=True, help="How often each kind is killed.")
@click.option("--page/--no-page", default=True, show_default=True, help="Whether to write the page.")
def main(tries: int, page: bool) -> None:
    table = {name: tried(name, tries) for name in KINDS}
    lines = ["| | killed |" + "".join(f" {each} |" for each in OUTCOMES), "| --- |" + " ---: |" * (len(OUTCOMES) + 1)]
    lines += [f"| {name} | {tries} |" + "".join(f" {row[each]} |" for each in OUTCOMES) for name, row in table.items()]
    if page:
        text = PAGE.read_text(encoding="utf-8").partition("## Killed")[0]
        PAGE.write_text(text + TEXT + "\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(any(row[OUTCOMES[3]] for row in table.values()))


TEXT = """## Killed at random moments

`python tools/kill_writes.py` wrote one version of a model over another and was killed with SIGKILL, every second time
while what it had written was moved into place. What was there then:

"""

if __name__ == "__main__":
    main()
