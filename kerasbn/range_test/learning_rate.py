"""Find a learning rate by the range test (Smith, 2017).

The rate grows exponentially from step to step. The loss falls while the rate is good, and diverges
once it is too high. What to make of the curve is in `kerasbn.range_test.suggestions`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import array_of
from kerasbn.compilation.memory import leaves
from kerasbn.compilation.optimizer import successor_of
from kerasbn.errors import OptionError, quoted
from kerasbn.graph.read import check_model
from kerasbn.pages.content import Curve, Page, Part
from kerasbn.processes import group_of
from kerasbn.progress import shown
from kerasbn.range_test.restoring import restored
from kerasbn.range_test.suggestions import DEFAULT, suggestions_of, trend_of
from kerasbn.shown import OnAPage, figure

_FEW = 5
_FEWEST = 10
_LEAST_GAIN = 0.1
_LOST = 0.75
_NOISE = 4.0
_RISE = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class LearningRateCurve(OnAPage):
    """The outcome of a range test. Made by `kerasbn.find_learning_rate`.

    Example:

    ```python
    curve = kerasbn.find_learning_rate(model, (x, y))
    model.optimizer.learning_rate = curve.suggestions["valley"]  # the cautious one
    ```

    Attributes:
        rates: The learning rates that were tried, from low to high.
        losses: The loss at each: of the batches of one step or, if asked for, of the validation data after it.
        smoothed: Their trend.
        suggestions: Learning rates to train with, by name. `"minimum"`: half of where the trend is lowest, which
            is the middle of the rates at which it has lost no more than a fifth of what it gained. `"steep"`: where it
            falls fastest. `"valley"`: the middle of its longest fall. `"slide"`: a quarter of the rate at which the
            loss diverged, where it did.
        suggestion: The one of `"minimum"`: of the four it varies the least from seed to seed
            (docs/reproduce/rate_finder.md).
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestions: Mapping[str, float]

    @property
    def suggestion(self) -> float:
        """The learning rate to train with."""
        return self.suggestions[DEFAULT]

    @property
    def _page(self) -> Page:
        curve = Curve("Loss by learning rate", self.rates, self.losses, self.smoothed, self.suggestion)
        lines = (f"Suggestions: {', '.join(f'{name} {rate:.2g}' for name, rate in self.suggestions.items())}",)
        return Page(f"Range test: a learning rate of {self.suggestion:.2g}", (Part("", lines, (curve,)),))

    def plot(self, path: str | Path) -> None:
        """Write the curve as a picture.

        Args:
            path: The file; its suffix is the format, `"curve.png"` or `"curve.svg"`.

        Raises:
            OptionError: if matplotlib, the extra `kerasbn[plot]`, is missing.
        """
        picture = figure()
        axes = picture.subplots()
        axes.plot(self.rates, self.losses, color="0.75", label="loss of a batch")
        axes.plot(self.rates, self.smoothed, color="C0", label="trend")
        for number, (name, rate) in enumerate(self.suggestions.items(), start=1):
            style = "-" if name == DEFAULT else ":"
            axes.axvline(rate, color=f"C{number}", linestyle=style, label=f"{name} {rate:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        axes.set_ylim(top=1.1 * max(self.smoothed[0], min(self.losses)))
        axes.legend()
        picture.savefig(path)


def find_learning_rate(
    model: keras.Model,
    data: Any,
    *,
    lowest: float = 1e-5,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    validation_data: Any = None,
) -> LearningRateCurve:
    """Find the learning rate for a compiled model by training it a little at ever higher ones.

    Afterwards the model is as before, bit for bit: weights, statistics, states, all of its
    optimizers, random state; also after an error or an interrupt. What was not built yet is built
    then, with the weights that it begins with.

    Where the optimizer accumulates gradients over several batches, a step is that many batches.

    Example:

    ```python
    curve = kerasbn.find_learning_rate(model, (x, y))
    curve.plot("rates.png")
    model.optimizer.learning_rate = curve.suggestion
    ```

    Args:
        model: A compiled Keras model. Its optimizer's class and configuration are used, but for
            the learning rate; its progress is not.
        data: What `fit` takes: a tuple `(x, y)` or `(x, y, sample_weight)` of arrays, a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches. It is gone through
            again and again where it is shorter than `steps`.
        lowest: The learning rate to begin with. Defaults to `1e-5`.
        highest: The learning rate to end with. Defaults to `10.0`.
        steps: How many steps to take between them. Fewer are taken once the loss diverges: it has lost
            three quarters of what it had gained or, where it gained less than a tenth, is half as
            much again as in the beginning; or it is not finite. Defaults to `100`.
        batch_size: How many examples of arrays make a batch. Defaults to `32`.
        validation_data: What the losses are measured on after each step, in inference mode, instead of on
            the batches of training before it; as `data`, gone through as a whole each time. Defaults to `None`:
            those of training.

    Returns:
        A `LearningRateCurve`.

    Raises:
        OptionError: if the model was not compiled, has several optimizers or a `train_step` that
            uses another one or logs no loss, an argument is not valid, the data does not fit, or the
            loss is never finite.
        UnsupportedModelError: if it is no Keras 3 model.

    Reference:

    - [Smith, 2017](https://arxiv.org/abs/1506.01186), section 3.3, on the test.
    - [Howard and Gugger, 2020](https://arxiv.org/abs/2002.04688), fastai, whose names the suggestions have.
    - [Bengio, 2012](https://arxiv.org/abs/1206.5533), section 3.1.1, on what to make of it.
    """
    _check(model, lowest, highest, steps, batch_size)
    rates = np.geomspace(lowest, highest, steps)
    losses: list[float] = []
    diverged = False
    with _keras.scope_of(model):
        optimizer = successor_of(model.optimizer, rate=lowest)
    (leaf,) = leaves(optimizer)
    validation = None if validation_data is None else [*_batches(validation_data, batch_size, "validation_data")]
    grouped = _in_groups(_endless(data, batch_size), leaf.gradient_accumulation_steps or 1)
    with restored(model), _keras.trained_with(model, optimizer) as train_on:
        for rate, batches in zip(rates, shown(grouped, "Trying learning rates", steps), strict=False):
            leaf.learning_rate = rate
            of_training = [_loss_of(_trained(model, train_on, batch), model, leaf) for batch in batches]
            losses.append(float(np.mean(of_training)) if validation is None else _validated(model, validation))
            if diverged := _has_diverged(losses):
                break
        if losses:
            _check_stepped(model, leaf)
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < _FEWEST:
        raise OptionError(
            f"The loss of model {model.name!r} diverges at a learning rate of {rates[len(finite)]:.2g} already, or the "
            f"data ended after {len(losses)} batches; nothing can be said from {len(finite)} steps. "
            "Pass a smaller lowest, or more data."
        )
    tried = tuple(float(rate) for rate in rates[: len(finite)])
    smoothed = trend_of(tried, finite)
    return LearningRateCurve(tried, tuple(finite), smoothed, suggestions_of(tried, smoothed, diverged=diverged))


def _check(model: keras.Model, lowest: float, highest: float, steps: int, batch_size: int) -> None:
    check_model(model)
    if not model.compiled or model.optimizer is None:
        raise OptionError(
            f"Model {model.name!r} was never compiled, so it cannot be trained. Call model.compile first; a compile of "
            "its own has to call super().compile(optimizer=...)."
        )
    if keras.backend.backend() == "tensorflow" and (workers := group_of(model).count) > 1:
        raise OptionError(
            f"Model {model.name!r} was made for {workers} workers of TensorFlow, with which Keras takes no single "
            "step. Test a copy that was made outside of the scope of the strategy, with batches as large as those of "
            "all workers together."
        )
    if len(leaves(model.optimizer)) > 1:
        raise OptionError(f"Model {model.name!r} has several optimizers; the test of one learning rate needs one.")
    if not 0 < lowest < highest < math.inf:
        raise OptionError(f"Options lowest={lowest!r} and highest={highest!r} must be positive, the first the smaller.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < _FEWEST:
        raise OptionError(f"Option steps is {steps!r}; it must be a number of at least {_FEWEST}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"Option batch_size is {batch_size!r}; it must be a positive number of examples.")


def _endless(data: Any, batch_size: int) -> Iterator[Any]:
    """Batches, over and over."""
    if isinstance(data, Iterator):
        yield from filter(_has_examples, data)
        return
    if isinstance(data, tuple) and len(data) not in (1, 2, 3):
        raise OptionError(f"Option data is a tuple of {len(data)}; it must be (x, y) or (x, y, sample_weight).")
    while True:
        yield from _batches(data, batch_size, "data", shuffle=isinstance(data, tuple))


def _in_groups(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Batches by the number that makes a step of an optimizer."""
    while len(group := [*itertools.islice(batches, size)]) == size:
        yield group


def _batches(data: Any, batch_size: int, option: str, *, shuffle: bool = False) -> Iterator[Any]:
    """Batches, once."""
    empty = True
    try:
        arrays = data if isinstance(data, tuple) else (data,)
        batches, _ = _keras.batches_of(*arrays, batch_size=batch_size, shuffle=shuffle)
    except Exception as error:
        raise OptionError(
            f"Option {option} cannot be taken batch by batch: {quoted(error)}. It must be arrays (x, y), a "
            "tf.data.Dataset, a keras.utils.PyDataset, or a generator of batches."
        ) from error
    for batch in filter(_has_examples, batches):
        empty = False
        yield batch
    if empty:
        raise OptionError(f"Option {option} holds no batch.")


def _has_examples(batch: Any) -> bool:
    shapes: Iterator[Any] = (getattr(leaf, "shape", ()) for leaf in keras.tree.flatten(batch))
    return all(shape[0] for shape in shapes if len(shape))


def _trained(model: keras.Model, train_on: Callable[[Any], Any], batch: Any) -> Mapping[str, Any]:
    """What a step of training on a batch logs."""
    model.reset_metrics()  # Keras gives the mean over all batches since then
    try:
        logs: Mapping[str, Any] = train_on(batch)
    except Exception as error:
        raise OptionError(
            f"Model {model.name!r} cannot be trained on option data: {quoted(error)}. Pass what model.fit takes: a "
            "tuple of arrays (x, y), or batches (x, y)."
        ) from error
    return logs


def _loss_of(logs: Mapping[str, Any], model: keras.Model, optimizer: keras.optimizers.Optimizer) -> float:
    """The loss among what a step of training logs."""
    if "loss" not in logs:
        _check_stepped(model, optimizer)
        raise OptionError(
            f"The train_step of model {model.name!r} returns {', '.join(logs) or 'nothing'}, and no 'loss', "
            "which the test goes by. Let it return that as well."
        )
    return float(np.mean(logs["loss"]))


def _validated(model: keras.Model, batches: Iterable[Any]) -> float:
    """The loss of a model on batches, in inference mode."""
    losses, sizes = [], []
    try:
        for batch in batches:
            model.reset_metrics()
            logs = model.test_on_batch(*keras.utils.unpack_x_y_sample_weight(batch), return_dict=True)
            losses.append(float(np.mean(logs["loss"])))
            sizes.append(keras.tree.flatten(batch)[0].shape[0])
    except Exception as error:
        raise OptionError(
            f"Model {model.name!r} cannot be evaluated on option validation_data: {quoted(error)}. Pass what "
            "model.evaluate takes: a tuple of arrays (x, y), or batches (x, y)."
        ) from error
    return float(np.average(losses, weights=sizes))


def _check_stepped(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Refuse a model that trains past the optimizer whose learning rate is tried."""
    if int(array_of(_keras.step_counter(optimizer))):
        return
    others = [
        name for name, value in _keras.own_attributes(model).items() if isinstance(value, keras.optimizers.Optimizer)
    ]
    raise OptionError(
        f"Training model {model.name!r} made no step with model.optimizer, whose learning rate the test varies"
        f"{f'; its train_step may use {listed}' if (listed := ', '.join(others)) else ''}. Let it use self.optimizer, "
        "or test the networks that it trains one by one."
    )


def _has_diverged(losses: list[float]) -> bool:
    """Whether the loss has lost most of what it had gained or, where that is next to nothing, has gone up by half.

    A network that is torn apart by one large step may end up at the loss that it began with, and stay there. What
    the losses of two batches in a row differ by counts for nothing.
    """
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) < _FEW:
        return False
    means = np.convolve(losses, np.full(_FEW, 1 / _FEW), mode="valid")
    first, lowest = means[0], means.min()
    gain = first - lowest
    limit = lowest + _LOST * gain if gain > _LEAST_GAIN * abs(first) else first + _RISE * abs(first)
    noise = float(np.mean(np.abs(np.diff(losses))))
    return bool(means[-1] > max(limit, lowest + _NOISE * noise))
