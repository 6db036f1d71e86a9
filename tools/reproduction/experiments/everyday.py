"""The default rewrite harms networks that fit smooth values, and none of the other everyday kinds.

The values of a dueling network, a smooth function of six numbers, are fitted less well with BN: in
training each example is normalized by the others of its batch. Beside it small networks of kinds that
end in arithmetic, have twins, a frozen base, or Dropout ahead of something else than BN, each as it is,
rewritten by default and, where it has Dropout, with all of that kept. Adam, the best of four rates for
each, chosen on a validation part. The score is accuracy, for the detector the share of digits found and
named, for the values of a dueling network R squared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import click
import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits

import kerasbn
from reporting import Table
from reproduction.comparison import FIRST_SWEEP_SEED, Budget
from reproduction.data import Array
from reproduction.intervals import mean
from reproduction.report import Line, Panel, Report, percent

RATES = (0.001, 0.003, 0.01, 0.03)
Score = Callable[[Any, Any], float]


@dataclasses.dataclass(frozen=True)
class Everyday:
    """A kind of network and what it is for.

    Attributes:
        build: Makes the network, uncompiled.
        inputs: What it gets, an array or several.
        targets: What it is to yield.
        loss: The loss.
        score: The score of outputs against targets, the higher the better.
        epochs: How long it is trained.
        has_dropout: Whether it has Dropout.
    """

    build: Callable[[], keras.Model]
    inputs: Any
    targets: Array
    loss: Any
    score: Score
    epochs: int = 10
    has_dropout: bool = False


def run(budget: Budget) -> Report:
    """Try it."""
    rows, panels = [], []
    for name, make in list(KINDS.items())[:1] if budget.quick else KINDS.items():
        kind, lines = make(), []
        for candidate, options in _candidates(kind):
            rates = budget.rates(RATES)
            swept = {rate: _scored(kind, options, rate, FIRST_SWEEP_SEED, budget)[0] for rate in rates}
            rate = max(swept, key=lambda rate: swept[rate])
            scores = [_scored(kind, options, rate, seed, budget)[1] for seed in range(budget.seeds)]
            rows.append((name, candidate, f"{rate:g}", mean(scores).text(percent)))
            lines.append(Line(candidate, list(swept), list(swept.values())))
            click.echo(" | ".join(rows[-1]), err=True)
        panels.append(Panel(name, "learning rate", "validation score", lines, log="x"))
    note = f"Mean of {budget.seeds} seeds with a t interval. The rates tried: {', '.join(map(str, RATES))}."
    return Report(
        [Table("In the end", ("kind", "network", "learning rate", "test score, %"), tuple(rows), note)], panels
    )


def _candidates(kind: Everyday) -> Iterator[tuple[str, dict[str, Any] | None]]:
    yield "as it is", None
    yield "rewritten", {}
    if kind.has_dropout:
        yield "rewritten, Dropout kept", {"dropout": "none"}


def _scored(
    kind: Everyday, options: dict[str, Any] | None, rate: float, seed: int, budget: Budget
) -> tuple[float, float]:
    """The scores on the validation part and on the test part."""
    keras.utils.set_random_seed(seed)
    model = kind.build()
    model.compile(keras.optimizers.Adam(rate), kind.loss)
    if options is not None:
        model = kerasbn.rewrite(model, **options)
    train, validation, test = (_part(kind.inputs, number) for number in range(3))
    targets = [_part(kind.targets, number) for number in range(3)]
    model.fit(train, targets[0], batch_size=32, epochs=1 if budget.quick else kind.epochs, verbose=0)
    validated, tested = (
        kind.score(part_targets, model.predict(part, verbose=0, batch_size=256))
        for part, part_targets in zip((validation, test), targets[1:], strict=True)
    )
    return validated, tested


def _part(arrays: Any, number: int) -> Any:
    """The training, validation or test part: three, one and one fifths."""
    begin, end = ((0, 0.6), (0.6, 0.8), (0.8, 1))[number]
    return keras.tree.map_structure(lambda array: array[int(begin * len(array)) : int(end * len(array))], arrays)


def _accuracy(classes: Any, outputs: Any) -> float:
    return float(np.mean(np.argmax(outputs, -1) == classes))


def _digits() -> tuple[Array, Array]:
    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order].reshape(-1, 8, 8, 1).astype("float32") / 16, classes[order].astype("int32")


def _scenes() -> tuple[Array, Array, Array]:
    """Digits somewhere on a noisy field of 16 by 16, where their corners are, and what they are."""
    generator = np.random.default_rng(0)
    images, classes = _digits()
    corners = generator.integers(0, 9, size=(len(images), 2))
    scenes = 0.2 * generator.random((len(images), 16, 16, 1), dtype="float32")
    for scene, image, (row, column) in zip(scenes, images, corners, strict=True):
        scene[row : row + 8, column : column + 8] += image
    return scenes, corners, classes


def _trunk(x: Any, depth: int = 3) -> Any:
    for _ in range(depth):
        x = layers.Conv2D(24, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    return x


def detector() -> Everyday:
    """Where a digit is, and which: box and class heads, reshaped, squashed and concatenated."""
    scenes, corners, classes = _scenes()

    def build() -> keras.Model:
        inputs = keras.Input((16, 16, 1))
        x = _trunk(inputs)
        box = ops.sigmoid(layers.Reshape((2,))(layers.Conv2D(2, 2)(x)))
        return keras.Model(inputs, layers.Concatenate()([box, layers.Reshape((10,))(layers.Conv2D(10, 2)(x))]))

    def loss(targets: Any, outputs: Any) -> Any:
        box = ops.mean(ops.square(outputs[:, :2] - targets[:, :2]), axis=-1)
        named = keras.losses.sparse_categorical_crossentropy(targets[:, 2], outputs[:, 2:], from_logits=True)
        return 10 * box + named

    def score(targets: Any, outputs: Any) -> float:
        near = np.max(np.abs(outputs[:, :2] - targets[:, :2]), axis=-1) * 8 < 1
        return float(np.mean(near & (np.argmax(outputs[:, 2:], -1) == targets[:, 2])))

    targets = np.concatenate([corners / 8, classes[:, None]], axis=1).astype("float32")
    return Everyday(build, scenes, targets, loss, score, epochs=20)


def segmentation() -> Everyday:
    """Which pixels belong to a digit: logits at half the size, resampled."""
    scenes, corners, _ = _scenes()
    masks = np.zeros((len(scenes), 16, 16), "int32")
    images, _ = _digits()
    for mask, image, (row, column) in zip(masks, images, corners, strict=True):
        mask[row : row + 8, column : column + 8] = image[..., 0] > 0.3

    def build() -> keras.Model:
        inputs = keras.Input((16, 16, 1))
        x = _trunk(inputs, depth=1)
        x = layers.Conv2D(24, 3, padding="same", activation="relu")(x)
        logits = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(2, 3, padding="same")(x))
        return keras.Model(inputs, layers.Softmax()(logits))

    return Everyday(build, scenes, masks, "sparse_categorical_crossentropy", _accuracy, epochs=5)


def dueling() -> Everyday:
    """The values of four actions: a value and the advantages, summed."""
    generator = np.random.default_rng(0)
    states = generator.normal(size=(3000, 6)).astype("float32")
    values = 20 + 5 * np.sin(states[:, :1] + states[:, 1:2]) + np.tanh(states @ generator.normal(size=(6, 4)))

    def build() -> keras.Model:
        inputs = keras.Input((6,))
        x = inputs
        for _ in range(3):
            x = layers.Dense(64, activation="relu")(x)
        advantage = layers.Dense(4)(x)
        return keras.Model(inputs, layers.Dense(1)(x) + advantage - ops.mean(advantage, axis=-1, keepdims=True))

    def score(targets: Any, outputs: Any) -> float:
        return 1 - float(np.mean((targets - outputs) ** 2) / np.var(targets))

    return Everyday(build, states, values.astype("float32"), "mse", score, epochs=20)


def siamese() -> Everyday:
    """Whether two digits are the same, by the distance of what one encoder makes of each."""
    images, classes = _digits()
    generator = np.random.default_rng(0)
    left = generator.integers(0, len(images), 4000)
    alike = [generator.choice(np.flatnonzero(classes == classes[index])) for index in left]
    right = np.where(np.arange(4000) % 2, alike, generator.integers(0, len(images), 4000))
    order = generator.permutation(4000)
    left, right = left[order], right[order]
    same = (classes[left] == classes[right]).astype("float32")[:, None]

    def build() -> keras.Model:
        inputs = [keras.Input((8, 8, 1)) for _ in range(2)]
        shared = [
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
        ]
        codes = []
        for x in inputs:
            for layer in shared:
                x = layer(x)
            codes.append(x)
        return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(ops.abs(codes[0] - codes[1])))

    def score(targets: Any, outputs: Any) -> float:
        return float(np.mean((outputs > 0.5) == (targets > 0.5)))

    return Everyday(build, [images[left], images[right]], same, "binary_crossentropy", score, epochs=10)


def _texts() -> tuple[Array, Array]:
    """Sentences of 20 words out of 50, and which of four pairs of words stands in them in its order."""
    generator = np.random.default_rng(0)
    texts, classes = generator.integers(8, 50, (4000, 20)), generator.integers(0, 4, 4000)
    for text, kind in zip(texts, classes, strict=True):
        first, second = sorted(generator.choice(20, 2, replace=False))
        text[[first, second]] = (1, 2) if kind == 0 else (2, 1) if kind == 1 else (3, 4) if kind == 2 else (4, 3)
    return texts.astype("int32"), classes.astype("int32")


def recurrent() -> Everyday:
    """Text through an LSTM: Dropout on the embedding, within the LSTM, and ahead of the head."""
    texts, classes = _texts()

    def build() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((20,), dtype="int32"),
                layers.Embedding(50, 16),
                layers.Dropout(0.2),
                layers.LSTM(32, dropout=0.2),
                layers.Dense(32, activation="relu"),
                layers.Dropout(0.3),
                layers.Dense(4, activation="softmax"),
            ]
        )

    return Everyday(build, texts, classes, "sparse_categorical_crossentropy", _accuracy, 15, has_dropout=True)


def transformer() -> Everyday:
    """Text through two blocks of a transformer, and a head of two layers."""
    texts, classes = _texts()

    def build() -> keras.Model:
        inputs = keras.Input((20,), dtype="int32")
        x = layers.Embedding(50, 32)(inputs) + layers.Embedding(20, 32)(ops.expand_dims(ops.arange(20), 0))
        for _ in range(2):
            y = layers.LayerNormalization()(x)
            x = x + layers.Dropout(0.1)(layers.MultiHeadAttention(4, 8, dropout=0.1)(y, y))
            y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
            x = x + layers.Dropout(0.1)(layers.Dense(32)(y))
        x = layers.Dense(32, activation="relu")(layers.GlobalAveragePooling1D()(x))
        return keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.Dropout(0.3)(x)))

    return Everyday(build, texts, classes, "sparse_categorical_crossentropy", _accuracy, 15, has_dropout=True)


def convolutions() -> Everyday:
    """Digits through convolutions with Dropout behind each."""
    images, classes = _digits()

    def build() -> keras.Model:
        x = inputs = keras.Input((8, 8, 1))
        for _ in range(3):
            x = layers.Dropout(0.3)(layers.Conv2D(32, 3, padding="same", activation="relu")(x))
        x = layers.Dense(64, activation="relu")(layers.Flatten()(layers.MaxPooling2D()(x)))
        return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.Dropout(0.5)(x)))

    return Everyday(build, images, classes, "sparse_categorical_crossentropy", _accuracy, 15, has_dropout=True)


def transfer() -> Everyday:
    """The digits from 5 on, by a head on a base that learned those below, and is frozen."""
    images, classes = _digits()
    low, high = images[classes < 5], images[classes >= 5]
    base = keras.Sequential([keras.Input((8, 8, 1)), *(layers.Conv2D(24, 3, activation="relu") for _ in range(2))])
    pretrained = keras.Sequential([base, layers.GlobalAveragePooling2D(), layers.Dense(5, activation="softmax")])
    pretrained.compile("adam", "sparse_categorical_crossentropy")
    keras.utils.set_random_seed(0)
    pretrained.fit(low, classes[classes < 5], epochs=20, verbose=0)
    weights = base.get_weights()

    def build() -> keras.Model:
        frozen = keras.models.clone_model(base)
        frozen.set_weights(weights)
        frozen.trainable = False
        inputs = keras.Input((8, 8, 1))
        x = layers.Dense(64, activation="relu")(layers.Flatten()(frozen(inputs, training=False)))
        return keras.Model(inputs, layers.Dense(5, activation="softmax")(x))

    loss = "sparse_categorical_crossentropy"
    return Everyday(build, high, classes[classes >= 5] - 5, loss, _accuracy, epochs=15)


KINDS: dict[str, Callable[[], Everyday]] = {
    "detector": detector,
    "segmentation": segmentation,
    "dueling values": dueling,
    "siamese": siamese,
    "text, LSTM": recurrent,
    "text, transformer": transformer,
    "convolutions, Dropout": convolutions,
    "frozen base": transfer,
}
