"""Statistics that fit the weights whenever a model is validated or saved in the course of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.catalog.norms import is_frozen, norms_in
from kerasbn.errors import OptionError
from kerasbn.statistics.calibration import measure
from kerasbn.statistics.data import check_steps, until_its_end
from kerasbn.statistics.measured import statistics_in

Values = list[tuple[keras.Variable, np.ndarray[Any, Any]]]


class Calibrate(keras.callbacks.Callback):
    """Validates and saves a model with measured statistics and averaged weights; training goes on as without it.

    The moving averages of batch normalization lag behind the weights that training moves, and know nothing of the
    averages of weights that an optimizer with `use_ema=True` keeps: either way validation sees a model that is worse
    than the one that was learned. During validation, and for all callbacks at the end of an epoch, such as
    `ModelCheckpoint` and `EarlyStopping`, the model has the averaged weights, if there are any, and statistics
    measured on `data` with them. When the next epoch begins, it has all its own again, bit for bit.

    It takes the place of `keras.callbacks.SwapEMAWeights`, and may stand anywhere among the callbacks. Where the
    learning rate has fallen and the moving averages have come up, there is nothing to gain. After `fit` the model is as
    it would be without the callback: `kerasbn.calibrate` it then.

    What `BackupAndRestore` keeps are the model's own weights, with which training is taken up again; so does a
    `ModelCheckpoint` that counts batches.

    Example:

    ```python
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), "sparse_categorical_crossentropy", metrics=["accuracy"])
    best = keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True)
    model.fit(x, y, validation_data=held_out, callbacks=[best, kerasbn.callbacks.Calibrate(x)])
    ```

    Args:
        data: A sample of the inputs of training, as for `kerasbn.calibrate`. The batches of a generator are kept. A
            `tf.data.Dataset` that shuffles anew each time goes on in its order by that: one that training takes its
            batches from is better given as another object.
        steps: How many batches of it to take. Defaults to `20`; `None`: all there are.
        ema: Whether to put the optimizer's averages of the weights in place, where it keeps any. Defaults to `True`.
        synchronized: Whether each process that trains gives a share of the data, as for `kerasbn.calibrate`. Defaults
            to `False`.

    Raises:
        OptionError: for an option of the wrong kind, and for data that does not fit the model.

    Reference:

    - [Izmailov et al., 2018](https://arxiv.org/abs/1803.05407), section 3.2, averaged weights need new statistics.
    """

    def __init__(self, data: Any, steps: int | None = 20, ema: bool = True, synchronized: bool = False) -> None:
        super().__init__()
        check_steps(steps)
        if not isinstance(ema, bool):
            raise OptionError(f"Option ema is {ema!r}; it must be True or False.")
        self._data = list(until_its_end(data, steps)) if isinstance(data, Iterator) else data
        self._once = isinstance(data, Iterator)
        self._steps = steps
        self._ema = ema
        self._synchronized = synchronized
        self._own: Values = []  # the model's, while others are in place
        self._ready: Values = []  # the others, for as long as an epoch lasts

    def set_model(self, model: keras.Model) -> None:
        """Begin anew, ahead of all callbacks that look at the model, so that these see what was validated.

        What a `fit` left in place that was interrupted is put back, unless the model was given other weights since.
        """
        super().set_model(model)
        _keras.move_ahead(self, behind=keras.callbacks.BackupAndRestore)
        if all(np.array_equal(variable.numpy(), value, equal_nan=True) for variable, value in self._ready):
            self._put_back()
        self._own, self._ready = [], []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Train on."""
        self._put_back()
        self._ready = []

    def on_test_begin(self, logs: Any = None) -> None:
        """Validate what was learned."""
        self._put_in_place()

    def on_test_end(self, logs: Any = None) -> None:
        """Let those see the model's own weights that back them up."""
        self._put_back()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Have saved what was validated."""
        self._put_in_place()

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the model as `fit` leaves it: an optimizer has put its averages in place by now."""
        finished = {id(weight) for weight, _ in self._averages()}
        self._own = [(variable, value) for variable, value in self._own if id(variable) not in finished]
        self._put_back()
        self._ready = []

    def _put_in_place(self) -> None:
        statistics = [weight for norm in norms_in(self.model) for weight in statistics_in(norm).values()]
        averages = self._averages()
        self._own = _values([weight for weight, _ in averages] + statistics)
        if self._ready:
            _set(self._ready)
            return
        try:
            _set((weight, average.numpy()) for weight, average in averages)
            data = iter(self._data) if self._once else self._data
            measure(self.model, data, self._steps, chosen=self._unfrozen, synchronized=self._synchronized)
        except BaseException:
            self._put_back()
            raise
        self._ready = _values(variable for variable, _ in self._own)

    def _unfrozen(self) -> list[keras.layers.BatchNormalization]:
        return [norm for norm in norms_in(self.model) if not is_frozen(norm)]

    def _averages(self) -> list[tuple[keras.Variable, keras.Variable]]:
        optimizer = getattr(self.model, "optimizer", None)
        return _keras.averaged_weights(optimizer) if self._ema and optimizer is not None else []

    def _put_back(self) -> None:
        _set(self._own)
        self._own = []


def _values(variables: Iterable[keras.Variable]) -> Values:
    return [(variable, np.array(variable.numpy())) for variable in variables]


def _set(values: Iterable[tuple[keras.Variable, np.ndarray[Any, Any]]]) -> None:
    for variable, value in values:
        _keras.set_value(variable, value)
