"""What `fit` does: its data, its callbacks, a step of it."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from numbers import Number
from typing import Any

import keras
from keras.src.trainers.data_adapters import get_data_adapter

from kerasbn._keras.models import TRAINING_ATTRIBUTES
from kerasbn._keras.processes import undistributed


@contextlib.contextmanager
def trained_with(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[Callable[[Any], Any]]:
    """Have a model trained with another optimizer inside, by what it gives: a step of training on a batch.

    A `train_step` gets the batch as `fit` would hand it on: `Model.train_on_batch` fills it up with `None`.
    """
    before = {name: getattr(model, name) for name in TRAINING_ATTRIBUTES}
    own = vars(model).get("train_step")
    length: int | None = None
    step = model.train_step

    def train_step(*arguments: Any) -> Any:
        *state, batch = arguments  # there is a state on JAX
        outcome = step(*state, batch[0] if length is None else batch[:length])
        return outcome if state or isinstance(outcome, dict) else {}

    def train_on(batch: Any) -> Any:
        nonlocal length
        length = len(batch) if isinstance(batch, list | tuple) else None
        return model.train_on_batch(*keras.utils.unpack_x_y_sample_weight(batch), return_dict=True)

    model.optimizer = optimizer
    model.train_function = None  # compiled for the one before
    model.steps_per_execution = 1
    object.__setattr__(model, "train_step", train_step)
    try:
        yield train_on
    finally:
        object.__delattr__(model, "train_step")
        if own is not None:
            object.__setattr__(model, "train_step", own)
        for name, value in before.items():
            setattr(model, name, value)


def greater_is_better(model: keras.Model, metric: str) -> bool | None:
    """Whether the greater value of a metric is the better one, by the name in the logs; `None` if Keras does not know.

    Those of one of several outputs have the name of it ahead of their own.
    """
    if metric == "loss" or metric.endswith("_loss"):
        return False
    for each in (inner for outer in model.metrics for inner in getattr(outer, "metrics", (outer,))):
        direction = getattr(each, "_direction", None)
        if direction is not None and (metric == each.name or metric.endswith(f"_{each.name}")):
            return bool(direction == "up")
    return None


def batches_of(*data: Any, batch_size: int, shuffle: bool = False) -> tuple[Iterator[Any], float | None]:
    """What `fit(*data)` would take, batch by batch, and how many batches there are.

    That is infinity for what never ends, and `None` where it is not known.

    Raises:
        ValueError: if it is nothing that `fit` takes.
    """
    leaves = keras.tree.flatten(data[0]) if isinstance(data[0], list | tuple | dict) else data[:1]
    if all(leaf is None for leaf in leaves):
        raise ValueError(f"it is {data[0]!r}")
    if all(isinstance(leaf, Number) for leaf in leaves):
        raise ValueError("it is Python numbers, to be made arrays with numpy.asarray")
    if isinstance(data[0], list | tuple | dict):  # of a dict Keras says it with an error in its own message
        paths = keras.tree.flatten_with_path(data[0])
        lengths = {path: leaf.shape[0] for path, leaf in paths if len(getattr(leaf, "shape", ()))}
        if len({*lengths.values()}) > 1:
            named = (f"{'.'.join(map(str, path))!r} {length}" for path, length in lengths.items())
            raise ValueError(f"its arrays have different lengths: {', '.join(named)}")
    if isinstance(data[0], Iterator):  # Keras takes none that yields inputs alone
        return data[0], math.inf if isinstance(data[0], itertools.cycle) else None
    with undistributed():  # which deals a dataset out to the processes, and refuses all else: this is one's share
        adapter = get_data_adapter(*data, batch_size=batch_size, shuffle=shuffle)
    count = adapter.num_batches
    if count is None and _never_ends(data[0]):
        count = math.inf
    return iter(adapter.get_numpy_iterator()), count


def _never_ends(data: Any) -> bool:
    """Whether a dataset of which Keras knows no number of batches says that it is infinite."""
    if isinstance(data, keras.utils.PyDataset):
        return True
    cardinality = getattr(data, "cardinality", None)
    return callable(cardinality) and int(cardinality()) == -1  # tf.data.INFINITE_CARDINALITY


def move_ahead(callback: keras.callbacks.Callback, behind: type[keras.callbacks.Callback]) -> None:
    """Have a callback that is being given its model called ahead of the others, but for those of one kind.

    The list that it is in is found on the stack: Keras tells a callback of its model, and nothing of the others.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList):
            others = [each for each in owner.callbacks if each is not callback]
            first = [each for each in others if isinstance(each, behind)]
            # Another list, since this one is being gone through.
            owner.callbacks = [*first, callback, *(each for each in others if each not in first)]
            return
        frame = frame.f_back
