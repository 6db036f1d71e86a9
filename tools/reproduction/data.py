"""The data sets, each made or loaded in a second: digits, signals, circles."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits, make_circles, make_friedman1

Array = np.ndarray[Any, np.dtype[Any]]
Part = tuple[Array, Array]
"""Inputs and labels."""

SHARES = (0.6, 0.8)
"""Where the training part ends, and where the validation part does."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Inputs and labels in three parts: to train on, to choose learning rates by, to report on."""

    train: Part
    validation: Part
    test: Part

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.train[0].shape[1:])

    def mapped(self, function: Any) -> Dataset:
        """The same with a function applied to the inputs."""
        parts = (self.train, self.validation, self.test)
        return Dataset(*((function(inputs), labels) for inputs, labels in parts))

    def relabelled(self, function: Any) -> Dataset:
        """The same with a function applied to the labels."""
        parts = (self.train, self.validation, self.test)
        return Dataset(*((inputs, function(labels)) for inputs, labels in parts))


def digits() -> Dataset:
    """The 1797 handwritten digits of scikit-learn, 64 numbers in [0, 1] each, in 10 classes."""
    inputs, labels = load_digits(return_X_y=True)
    return _parted(inputs / 16, labels)


def digit_images() -> Dataset:
    """The same digits as images of 8x8 pixels."""
    return digits().mapped(lambda inputs: inputs.reshape(-1, 8, 8, 1))


def large_digit_images(mnist: Path | None) -> Dataset:
    """Digits of 28x28 pixels from a file in the layout of Keras's `mnist.npz`; without one, those of 8x8.

    A sixth of the training part is left for validation.
    """
    if mnist is None:
        return digit_images()
    with np.load(mnist) as file:
        parts = [(file[f"x_{name}"], file[f"y_{name}"]) for name in ("train", "test")]
    train, test = ((images[..., None].astype("float32") / 255, labels.astype("int32")) for images, labels in parts)
    order = np.random.default_rng(0).permutation(len(train[1]))
    validation, rest = order[: len(order) // 6], order[len(order) // 6 :]
    return Dataset(*((images[rows], labels[rows]) for rows in (rest, validation) for images, labels in [train]), test)


def circles() -> Dataset:
    """Two noisy circles, one in the other: 5000 points in 2 classes, within about [-1, 1]."""
    return _parted(*make_circles(n_samples=5000, noise=0.1, random_state=0))


def signals(count: int = 5000) -> Dataset:
    """Signals of 40 numbers in 10 classes, made as those of MNIST-1D are (Greydanus and Kobak, 2020).

    The template of a class is moved, stretched, scaled, sheared, and buried in smooth and white
    noise. The templates are random curves of 12 points.
    """
    generator = np.random.default_rng(0)
    templates = np.cumsum(generator.normal(size=(10, 12)), axis=1)
    templates = (templates - templates.mean(1, keepdims=True)) / templates.std(1, keepdims=True)
    labels = generator.integers(0, 10, count)
    return _parted(np.stack([_signal(templates[label], generator) for label in labels])[..., None], labels)


def smooth_function() -> Dataset:
    """A smooth function of six numbers at 3000 points, without noise."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(3000, 6)).astype("float32")
    return _with_values(
        inputs, np.sin(inputs[:, :1] + inputs[:, 1:2]) + np.tanh(inputs @ generator.normal(size=(6, 1)))
    )


def noisy_function() -> Dataset:
    """Friedman's first function of ten numbers at 3000 points, with noise of a fifth of its standard deviation."""
    inputs, values = make_friedman1(3000, noise=1.0, random_state=0)
    return _with_values(inputs.astype("float32"), (values[:, None] - 14) / 5)


def _with_values(inputs: Array, values: Array) -> Dataset:
    parts = (slice(1800), slice(1800, 2400), slice(2400, None))
    return Dataset(*((inputs[part], values[part].astype("float32")) for part in parts))


def _signal(template: Array, generator: np.random.Generator, length: int = 40) -> Array:
    width = generator.integers(14, 26)
    start = generator.integers(0, length - width)
    stretched = np.interp(np.linspace(0, 11, width), np.arange(12), template)
    signal = np.zeros(length)
    signal[start : start + width] = stretched * generator.uniform(0.75, 1.25)
    signal += generator.uniform(-0.75, 0.75) * np.linspace(-1, 1, length)
    smooth = np.convolve(generator.normal(size=length + 8), np.hanning(11)[1:-1] / 2, mode="valid")
    return signal + 0.25 * smooth + 0.02 * generator.normal(size=length)


def _parted(inputs: Array, labels: Array) -> Dataset:
    order = np.random.default_rng(0).permutation(len(inputs))
    inputs, labels = inputs[order].astype("float32"), labels[order].astype("int32")
    ends = [int(share * len(inputs)) for share in SHARES]
    return Dataset(*zip(np.split(inputs, ends), np.split(labels, ends), strict=True))
