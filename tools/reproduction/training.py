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
from keras import ops

from reproduction.data import Array, Dataset
from reproduction.engines import engine

_AT_ONCE = 2000
"""How many examples are evaluated at a time."""

Score = Callable[[Any, Any], Any]
"""The score of each example, from the labels and the outputs: the greater the better."""


def accuracy(labels: Any, outputs: Any) -> Any:
    """1 where the greatest output is that of the class."""
    return ops.cast(ops.equal(ops.argmax(outputs, axis=-1), labels), "float32")


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
        self._every, self._batch_size, self._shift = every, batch_size, shift
        self._count = len(data.train[0])
        inputs, labels = map(ops.convert_to_tensor, data.train)
        seen, known = (
            ops.convert_to_tensor(np.concatenate([one, other]))
            for one, other in zip(data.validation, data.test, strict=True)
        )
        self._boundary = len(data.validation[0])
        heads = len(model.outputs)

        def examples(batch: Any) -> tuple[Any, Any]:
            rows, classes = ops.take(inputs, batch[:, 0], axis=0), ops.take(labels, batch[:, 0], axis=0)
            return moved(rows, batch[:, 1:], shift) if shift else rows, classes if heads == 1 else [classes] * heads

        def scores(rows: Any) -> Any:
            outputs = model(ops.take(seen, rows, axis=0), training=False)
            return score(ops.take(known, rows, axis=0), outputs if heads == 1 else outputs[0])

        self._train, self._evaluate = engine(model, examples, scores, xla)
        self._parts = np.split(np.arange(len(seen), dtype="int32"), range(_AT_ONCE, len(seen), _AT_ONCE))

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
            self._train(np.stack([next(batches) for _ in range(self._every)]))
            seen.append(self.scores())
            watch()
            best = np.maximum(best, seen[-1])
            if best.min() >= stop_at:
                break
        return Run(self._every, *np.transpose(seen))

    def scores(self) -> tuple[float, float]:
        """The scores of the model as it is, on the validation part and the test part."""
        scores = np.concatenate([self._evaluate(rows) for rows in self._parts])
        return float(np.mean(scores[: self._boundary])), float(np.mean(scores[self._boundary :]))

    def _reset(self, start: keras.Model, rate: float | None) -> None:
        for ours, theirs in zip(self.model.variables, start.variables, strict=True):
            ours.assign(theirs)
        rates = self.model.optimizer.learning_rate
        for variable in self.model.optimizer.variables:
            if variable is not rates:
                variable.assign(ops.zeros_like(variable.value))
        if rate is not None:
            self.model.optimizer.learning_rate = rate

    def _batches(self, seed: int) -> Iterator[Array]:
        """For each example of a batch its number, and where it is moved to, down and to the right."""
        generator = np.random.default_rng(seed)
        while True:
            order = generator.permutation(self._count)
            for begin in range(0, self._count - self._batch_size + 1, self._batch_size):
                moves = generator.integers(-self._shift, self._shift + 1, (self._batch_size, 2))
                yield np.column_stack((order[begin : begin + self._batch_size], moves)).astype("int32")


def moved(images: Any, moves: Any, most: int) -> Any:
    """Images, each moved by some pixels down and to the right, by `most` at most, with zeros coming in."""
    sizes = images.shape[1:3]
    images = ops.pad(images, [[0, 0], [most, most], [most, most], [0, 0]])
    for axis, size in enumerate(sizes, 1):
        pixels = most - moves[:, axis - 1, None] + ops.arange(size, dtype=moves.dtype)
        images = ops.take_along_axis(images, ops.expand_dims(pixels, [3 - axis, 3]), axis=axis)
    return images
