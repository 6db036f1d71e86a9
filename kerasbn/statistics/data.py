"""Batches of inputs out of whatever Keras trains on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import OptionError, quoted
from kerasbn.progress import shown

_BATCH = 32


def batches(model: keras.Model, data: Any, doing: str, steps: int | None = None) -> Iterator[list[Any]]:
    """The inputs of a model, batch by batch: flat, as tensors, in the dtypes of the model's inputs.

    Args:
        model: The model. Of a subclassed one the inputs come out as they are, in one piece.
        data: Arrays in the structure of the model's inputs, or a `tf.data.Dataset`,
            `keras.utils.PyDataset` or generator of batches `x`, `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`. Arrays are taken by 32, or by the batch size that the model
            insists on; a last batch that is smaller than that is left out.
        doing: What the batches are for, shown as progress.
        steps: The most batches to take. Defaults to `None`: all.

    Raises:
        OptionError: if the data is of another kind, does not fit the model, or is empty.
    """
    functional = _keras.functional_of(model)
    specs = [] if functional is None else keras.tree.flatten(model.inputs)
    source, count = _source(data, next((spec.shape[0] for spec in specs), None) or _BATCH)
    empty = True
    total = steps if count is None or (steps is not None and steps < count) else count
    for batch in shown(islice(source, steps), doing, total):
        inputs = keras.utils.unpack_x_y_sample_weight(batch)[0]
        tensors = [inputs] if functional is None else _tensors(model, inputs)
        if all(spec.shape[0] in (None, tensor.shape[0]) for spec, tensor in zip(specs, tensors, strict=False)):
            empty = False
            yield tensors
    if empty:
        raise OptionError("Option data holds no batch. A generator gives its batches once: make a new one.")


def first_batch(data: Any) -> Any:
    """The inputs of the first batch of data, `None` where that would use it up.

    Raises:
        OptionError: if the data is nothing that `batches` takes.
    """
    if isinstance(data, Iterator):
        return None
    return keras.utils.unpack_x_y_sample_weight(next(iter(_source(data, _BATCH)[0])))[0]


def _source(data: Any, batch_size: int) -> tuple[Iterator[Any], int | None]:
    try:
        return _keras.batches_of(data, batch_size=batch_size)
    except Exception as error:
        raise OptionError(
            f"Option data cannot be taken batch by batch: {quoted(error)}. It must be arrays in the structure "
            "of the model's inputs, a tf.data.Dataset, a keras.utils.PyDataset, or a generator of batches."
        ) from error


def _tensors(model: keras.Model, inputs: Any) -> list[Any]:
    specs = keras.tree.flatten(model.inputs)
    count = len(keras.tree.flatten(inputs))
    if count != len(specs) and not isinstance(inputs, dict):  # a dict may hold more than the model takes
        raise _misfit(model, f"it has {len(specs)} inputs, the data {count}")
    try:
        tensors = _keras.standardized_inputs(_keras.functional_of(model), inputs)
    except Exception as error:
        raise _misfit(model, quoted(error)) from error
    for spec, tensor in zip(specs, tensors, strict=True):
        expected, got = tuple(spec.shape[1:]), tuple(tensor.shape[1:])
        if any(size not in (None, own) for size, own in zip(expected, got, strict=True)):
            raise _misfit(model, f"input {spec.name!r} has shape {expected}, the data {got}")
    return tensors


def _misfit(model: keras.Model, cause: str) -> OptionError:
    return OptionError(
        f"Option data does not fit the inputs of model {model.name!r}: {cause}. Pass the inputs in the structure "
        "in which the model is called, with the batch as the first axis."
    )
