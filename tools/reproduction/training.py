"""Training small networks many times over, quickly: from other weights and at other learning rates.

`fit` spends more time between the steps of a small network than in them. Here a network is traced
once, many steps at a time, on data that stays in memory; a step is Keras's own `train_step`. Each
run then starts from weights of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from reproduction.data import Array, Dataset

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
    """

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        every: int,
        batch_size: int = 60,
        score: Score = accuracy,
        xla: bool = False,
    ) -> None:
        self.model = model
        self._every, self._batch_size = every, batch_size
        self._count = len(data.train[0])
        inputs, labels = map(tf.constant, data.train)
        seen = tf.constant(np.concatenate([data.validation[0], data.test[0]]))
        known = tf.constant(np.concatenate([data.validation[1], data.test[1]]))
        boundary = len(data.validation[0])
        model.optimizer.build(model.trainable_variables)

        step = tf.function(model.train_step, jit_compile=True) if xla else model.train_step

        @tf.function
        def train(batches: tf.Tensor) -> None:
            for rows in batches:
                step((tf.gather(inputs, rows), tf.gather(labels, rows)))

        @tf.function(jit_compile=xla)
        def evaluate() -> tuple[tf.Tensor, tf.Tensor]:
            scores = score(known, model(seen, training=False))
            return tf.reduce_mean(scores[:boundary]), tf.reduce_mean(scores[boundary:])

        self._train, self._evaluate = train, evaluate

    def run(
        self,
        start: keras.Model,
        rate: float,
        seed: int,
        steps: int,
        stop_at: float = np.inf,
        watch: Callable[[], object] = lambda: None,
    ) -> Run:
        """Train once.

        Args:
            start: A model of the same architecture, whose weights training starts from.
            rate: The learning rate.
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
        validation, test = self._evaluate()
        return float(validation), float(test)

    def _reset(self, start: keras.Model, rate: float) -> None:
        for ours, theirs in zip(self.model.variables, start.variables, strict=True):
            ours.assign(theirs)
        for variable in self.model.optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable))
        self.model.optimizer.learning_rate = rate

    def _batches(self, seed: int) -> Iterator[Array]:
        generator = np.random.default_rng(seed)
        while True:
            order = generator.permutation(self._count)
            for begin in range(0, self._count - self._batch_size + 1, self._batch_size):
                yield order[begin : begin + self._batch_size]
