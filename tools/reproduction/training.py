"""Training small networks many times over, quickly: from other weights and at other learning rates.

`fit` spends more time between the steps of a small network than in them. Here a network is traced
once, many steps at a time, on data that stays in memory; a step is Keras's own `train_step`. Each
run then starts from weights of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reproduction.data import Array, Dataset

_AT_ONCE = 2000
"""How many examples are evaluated at a time."""

Score = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""The score of each example, from the labels and the outputs: the greater the better."""


def accuracy(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """1 where the greatest output is that of the class."""
    return tf.cast(tf.argmax(outputs, axis=-1, output_type=labels.dtype) == labels, "float32")


@dataclasses.dataclass(frozen=True)
class Run:
    """The mean scores of one training run, accuracies if nothing else is asked for.

    Attributes:
        every: The number of steps between two evaluations.
        validation: The score on the validation part at each evaluation.
        test: That on the test part.
    """

    every: int
    validation: Array
    test: Array

    def to_list(self) -> list[Any]:
        """The run as plain data, ready for JSON."""
        return [self.every, self.validation.tolist(), self.test.tolist()]

    @classmethod
    def from_list(cls, data: Sequence[Any]) -> Run:
        """The run that such data is of."""
        return cls(data[0], np.array(data[1]), np.array(data[2]))

    def steps_to(self, target: float, limit: float = np.inf, part: str = "test") -> float:
        """The steps after which a score is seen for the first time, `limit` if it never is."""
        (reached,) = np.nonzero(getattr(self, part) >= target)
        return float((reached[0] + 1) * self.every) if len(reached) else limit


class Trainer:
    """Trains a network from given weights, as often as wanted.

    Args:
        model: The compiled model that is trained. Its weights when it comes do not matter.
        data: The data.
        every: The number of steps between two evaluations.
        batch_size: The number of examples in a step.
        score: What is evaluated.
        xla: Whether XLA compiles the steps: slow at first, and fast where a network loops over time.
        shift: By how many pixels images are moved at most, each time that they are trained on.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        every: int,
        batch_size: int = 60,
        score: Score = accuracy,
        xla: bool = False,
        shift: int = 0,
    ) -> None:
        self.model = model
        self._every, self._batch_size = every, batch_size
        self._count = len(data.train[0])
        inputs, labels = map(tf.constant, data.train)
        seen = tf.constant(np.concatenate([data.validation[0], data.test[0]]))
        known = tf.constant(np.concatenate([data.validation[1], data.test[1]]))
        self._boundary = len(data.validation[0])
        heads = len(model.outputs)
        model.optimizer.build(model.trainable_variables)

        step = tf.function(model.train_step, jit_compile=True) if xla else model.train_step

        @tf.function
        def train(batches: tf.Tensor) -> None:
            for rows in batches:
                examples, classes = tf.gather(inputs, rows), tf.gather(labels, rows)
                step((_moved(examples, shift) if shift else examples, classes if heads == 1 else [classes] * heads))

        @tf.function(jit_compile=xla)
        def evaluate(begin: tf.Tensor) -> tf.Tensor:
            outputs = model(seen[begin : begin + _AT_ONCE], training=False)
            return score(known[begin : begin + _AT_ONCE], outputs if heads == 1 else outputs[0])

        self._train, self._evaluate = train, evaluate
        self._parts = [tf.constant(begin) for begin in range(0, len(seen), _AT_ONCE)]

    def run(
        self,
        start: keras.Model,
        rate: float | None,
        seed: int,
        steps: int,
        stop_at: float = np.inf,
        watch: Callable[[], object] = lambda: None,
    ) -> Run:
        """Train once.

        Args:
            start: A model of the same architecture, whose weights training starts from.
            rate: The learning rate; `None` for what the model was compiled with, such as a schedule.
            seed: What the order of the batches is drawn from.
            steps: The number of steps.
            stop_at: The score that training ends at when both parts have reached it.
            watch: What is called at each evaluation, to look at the model.
        """
        self._reset(start, rate)
        batches = self._batches(seed)
        seen: list[tuple[float, float]] = []
        best = np.zeros(2)
        for _ in range(steps // self._every):
            self._train(tf.constant(np.stack([next(batches) for _ in range(self._every)])))
            seen.append(self.scores())
            watch()
            best = np.maximum(best, seen[-1])
            if best.min() >= stop_at:
                break
        return Run(self._every, *np.transpose(seen))

    def scores(self) -> tuple[float, float]:
        """The scores of the model as it is, on the validation part and the test part."""
        scores = np.concatenate([self._evaluate(begin) for begin in self._parts])
        return float(np.mean(scores[: self._boundary])), float(np.mean(scores[self._boundary :]))

    def _reset(self, start: keras.Model, rate: float | None) -> None:
        for ours, theirs in zip(self.model.variables, start.variables, strict=True):
            ours.assign(theirs)
        rates = self.model.optimizer.learning_rate
        for variable in self.model.optimizer.variables:
            if variable is not rates:
                variable.assign(keras.ops.zeros_like(variable))
        if rate is not None:
            self.model.optimizer.learning_rate = rate

    def _batches(self, seed: int) -> Iterator[Array]:
        generator = np.random.default_rng(seed)
        while True:
            order = generator.permutation(self._count)
            for begin in range(0, self._count - self._batch_size + 1, self._batch_size):
                yield order[begin : begin + self._batch_size]


def _moved(images: tf.Tensor, most: int) -> tf.Tensor:
    """Images, each moved by some pixels, with zeros coming in."""
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [most, most], [most, most], [0, 0]])
    for axis, size in ((1, height), (2, width)):
        first = tf.random.uniform([tf.shape(images)[0], 1], maxval=2 * most + 1, dtype="int32")
        padded = tf.gather(padded, first + tf.range(size), axis=axis, batch_dims=1)
    return padded
