"""While weights are averaged, validation needs statistics measured with them.

Three convolutions with batch normalization on scikit-learn's digits, Keras's layer with its default momentum of
0.99, SGD at 0.1 with momentum 0.9 in batches of 32, trained by `fit`: the accuracy that each epoch's validation
reports, without averages of the weights and with those of `use_ema` (0.95). `kerasbn.callbacks.Calibrate` has
20 batches of the training part. "The file" is the model that a `ModelCheckpoint` ahead of it in the list of
callbacks has saved. In the later epochs, once the moving averages have come up, there is little left to gain.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from kerasbn.callbacks import Calibrate
from reporting import Table
from reproduction import data
from reproduction.comparison import Budget
from reproduction.data import Part
from reproduction.intervals import mean
from reproduction.networks import normalized_convolutions
from reproduction.report import Panel, Report, banded, percent

EPOCHS = 15
SHOWN = (1, 2, 3, 5, 10, 15)
STEPS = 20
Callbacks = Callable[[Part], list[keras.callbacks.Callback]]
SETTINGS: dict[str, tuple[bool, Callbacks]] = {
    "no averages": (False, lambda train: []),
    "no averages, Calibrate": (False, lambda train: [Calibrate(train[0], STEPS)]),
    "SwapEMAWeights": (True, lambda train: [keras.callbacks.SwapEMAWeights()]),
    "Calibrate": (True, lambda train: [Calibrate(train[0], STEPS)]),
}
FILE = "Calibrate, the file"


def run(budget: Budget) -> Report:
    """Try it."""
    digits = data.digit_images()
    parts = zip(digits.train, digits.validation, strict=True)
    train: Part = tuple(map(np.concatenate, parts))  # type: ignore[assignment]  # two of them
    epochs = 2 if budget.quick else EPOCHS
    shown = [epoch for epoch in SHOWN if epoch <= epochs]
    found: dict[str, list[Sequence[float]]] = {name: [] for name in (*SETTINGS, FILE)}
    for seed in range(budget.seeds):
        for name, (ema, callbacks) in SETTINGS.items():
            found[name].append(_validated(seed, train, digits.test, epochs, ema, callbacks(train)))
        found[FILE].append(_saved(seed, train, digits.test, epochs))
    rows, lines = [], []
    for name, accuracies in found.items():
        by_epoch = [mean(column) for column in np.transpose(accuracies)]
        rows.append((name, *(by_epoch[epoch - 1].text(percent) for epoch in shown)))
        lines.append(banded(name, range(1, epochs + 1), by_epoch))
    table = Table(
        "Validation accuracy, %",
        ("setting", *(f"epoch {epoch}" for epoch in shown)),
        tuple(rows),
        f"Mean of {budget.seeds} seeds with a t interval.",
    )
    return Report([table], [Panel("digits, three convolutions", "epochs", "validation accuracy", lines)])


def _network(seed: int, ema: bool) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = normalized_convolutions()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, 0.9, use_ema=ema, ema_momentum=0.95), loss, metrics=["accuracy"])
    return model


def _validated(
    seed: int, train: Part, test: Part, epochs: int, ema: bool, callbacks: list[keras.callbacks.Callback]
) -> Sequence[float]:
    model = _network(seed, ema)
    history = model.fit(*train, validation_data=test, epochs=epochs, verbose=0, callbacks=callbacks)
    return list(history.history["val_accuracy"])


def _saved(seed: int, train: Part, test: Part, epochs: int) -> Sequence[float]:
    with tempfile.TemporaryDirectory() as folder:
        saves = keras.callbacks.ModelCheckpoint(f"{folder}/{{epoch:02d}}.keras")
        _validated(seed, train, test, epochs, True, [saves, Calibrate(train[0], STEPS)])
        models = map(keras.models.load_model, sorted(Path(folder).iterdir()))
        return [model.evaluate(*test, verbose=0)[1] for model in models]
