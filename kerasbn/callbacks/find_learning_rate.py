"""The learning rate found by the range test, in the course of training."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.compilation.memory import leaves
from kerasbn.errors import OptionError
from kerasbn.range_test.learning_rate import LearningRateCurve, find_learning_rate
from kerasbn.range_test.suggestions import DEFAULT, NAMES


class FindLearningRate(keras.callbacks.Callback):
    """Has the range test find the learning rate when some epochs begin, and sets it.

    The test leaves nothing behind: weights, statistics, what the optimizer has learned and random state are as
    before, only the rate is another. The rate is in the logs of each epoch, as `learning_rate`.

    It is for a rate that stays until the next test. An optimizer that follows a schedule is refused, and callbacks
    that lower the rate go on from what was found. What is found in the midst of training is the rate for weights that
    stand where they stand, without the momentum that they have.

    Example:

    ```python
    finds = kerasbn.callbacks.FindLearningRate((x, y), at_epochs=[0, 10])
    model.fit(x, y, epochs=20, callbacks=[finds])
    finds.curves[10].plot("epoch10.png")
    ```

    Args:
        data: The data of training, as for `kerasbn.find_learning_rate`.
        at_epochs: The epochs, from 0, at whose beginning the rate is found. Defaults to `(0,)`.
        suggestion: Which of the suggestions to take: `"minimum"`, `"steep"`, `"valley"` or `"slide"`. Where the loss
            did not diverge there is no `"slide"`, and `"minimum"` is taken. Defaults to `"minimum"`.
        **options: Those of `kerasbn.find_learning_rate`, such as `steps` and `batch_size`.

    Attributes:
        curves: The outcome of each test, by the epoch.

    Raises:
        OptionError: for an option of the wrong kind; when training begins, for an optimizer whose learning rate cannot
            be set; and whatever `kerasbn.find_learning_rate` raises.

    Reference:

    - [Smith, 2017](https://arxiv.org/abs/1506.01186), section 3.3, on the test.
    """

    def __init__(self, data: Any, at_epochs: Collection[int] = (0,), suggestion: str = DEFAULT, **options: Any) -> None:
        super().__init__()
        if isinstance(at_epochs, str | bytes) or not all(_is_epoch(each) for each in at_epochs):
            raise OptionError(
                f"Option at_epochs is {at_epochs!r}; it must be numbers of epochs from 0, such as (0, 10)."
            )
        if suggestion not in NAMES:
            raise OptionError(f"Option suggestion is {suggestion!r}; it must be one of {', '.join(map(repr, NAMES))}.")
        self.curves: dict[int, LearningRateCurve] = {}
        self._data = data
        self._at_epochs = frozenset(at_epochs)
        self._suggestion = suggestion
        self._options = options

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuse an optimizer whose learning rate is not its own."""
        for optimizer in leaves(self.model.optimizer):
            if not isinstance(_keras.learning_rate_of(optimizer), keras.Variable):
                raise OptionError(
                    f"Optimizer {optimizer.name!r} follows a schedule, so that no learning rate can be set. Compile "
                    "the model with a number as the learning rate, or leave FindLearningRate out."
                )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find the rate for what follows."""
        if epoch in self._at_epochs:
            curve = self.curves[epoch] = find_learning_rate(self.model, self._data, **self._options)
            self.model.optimizer.learning_rate = curve.suggestions.get(self._suggestion, curve.suggestion)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the rate."""
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


def _is_epoch(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
