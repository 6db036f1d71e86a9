"""Train a small convolutional network with batch normalization on digits, and make it small and fast.

    python examples/quantize.py

Batch normalization is inserted for training, its statistics are measured on the training images, and
export folds it away. The files in int8 take the ranges of activations from the same images. Shown for
each file: the part of the test images that it gets right, its size, and what an image takes on one
thread, by 64.
"""

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kerasbn.cli.quiet import keras_imported_quietly

with keras_imported_quietly():
    import keras
    from keras import layers

    import kerasbn

FORMATS = {".onnx": (None, "float16", "int8"), ".tflite": (None, "float16", "int8_dynamic", "int8")}
BATCH = 64

Run = Callable[[np.ndarray], np.ndarray]


def network() -> keras.Model:
    """Three convolutions and a head, without normalization."""
    x = inputs = keras.Input((8, 8, 1), name="image")
    for width in (32, 64, 64):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    outputs = layers.Dense(10, activation="softmax", name="digit")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs, name="digits")
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    return model


def loaded(path: Path) -> Run:
    """What a file computes, on one thread."""
    if path.suffix == ".tflite":
        runner = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
        return lambda images: runner(image=images)["digit"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["digit"], {"image": images})[0]


def microseconds(run: Run, images: np.ndarray, times: int = 30) -> float:
    """What an image takes: the least of several times."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        run(images)
        taken.append(time.perf_counter() - started)
    return min(taken) / len(images) * 1e6


@click.command(help=__doc__)
@click.option("--epochs", default=8, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
def main(epochs: int, output: Path) -> None:
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)

    model = kerasbn.rewrite(network())
    model.fit(train_x, train_y, batch_size=32, epochs=epochs, verbose=0)
    kerasbn.calibrate(model, train_x)

    output.mkdir(exist_ok=True)
    table = Table()
    for heading in ("file", "right", "max error", "size", "per image"):
        table.add_column(heading, justify="left" if heading == "file" else "right")
    for suffix, kinds in FORMATS.items():
        for kind in kinds:
            path = output / f"digits-{kind or 'float32'}{suffix}"
            report = kerasbn.export(
                model, path, overwrite=True, quantize=kind, data=train_x if kind == "int8" else None
            )
            run = loaded(path)
            right = np.mean(np.argmax(run(test_x), axis=-1) == test_y)
            speed = microseconds(run, test_x[:BATCH])
            error, size = f"{report.max_error:.1e}", f"{report.bytes / 1000:.0f} kB"
            table.add_row(path.name, f"{right:.1%}", error, size, f"{speed:.0f} µs")
    Console().print(table)


if __name__ == "__main__":
    main()
