"""Batches of inputs out of whatever Keras trains on."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from itertools import islice
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import OptionError, listed, quoted
from kerasbn.progress import shown

_BATCH = 32
_MOST = 10_000
"""How many batches of an iterator that does not tell its end are waited for."""


def batches(
    model: keras.Model, data: Any, doing: str, steps: int | None = None, *, may_be_none: bool = False
) -> Iterator[list[Any]]:
    """The inputs of a model, batch by batch: flat, as tensors, in the dtypes of the model's inputs.

    An optional one that is left out is `None`.

    Args:
        model: The model. Of one that has no graph the inputs come out as they are, in one piece.
        data: Arrays in the structure of the model's inputs, or a `tf.data.Dataset`,
            `keras.utils.PyDataset` or generator of batches `x`, `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`. Arrays are taken by 32, or by the batch size that the model
            insists on; a last batch that is smaller than that is left out.
        doing: What the batches are for, shown as progress.
        steps: The most batches to take. Defaults to `None`: all.
        may_be_none: Whether there may be no batch at all, as in `()`. Defaults to `False`.

    Raises:
        OptionError: if the data is of another kind, does not fit the model, is empty, or never ends.
    """
    if may_be_none and not keras.tree.flatten(data):
        return
    is_graph = _keras.is_graph(model)
    specs = keras.tree.flatten(model.inputs) if is_graph else []
    size = next((spec.shape[0] for spec in specs if spec.shape[0] is not None), None)
    source, count = _taken_apart(data, size or _BATCH)
    if steps is None and count == math.inf:
        raise _endless("never ends")
    total = steps if count is None or (steps is not None and steps < count) else int(count)
    source = until_its_end(source, steps) if isinstance(data, Iterator) else islice(source, steps)
    empty = True
    for batch in shown(source, doing, total):
        inputs = keras.utils.unpack_x_y_sample_weight(batch)[0]
        if inputs is None:
            raise _misfit(model, "a batch of it is None")
        tensors = _tensors(model, inputs) if is_graph else [inputs]
        rows = {tensor.shape[0] for tensor in keras.tree.flatten(tensors) if len(getattr(tensor, "shape", ()))}
        if rows != {0} and rows >= {size} - {None}:
            empty = False
            yield tensors
    if empty and not may_be_none:
        examples = "" if size is None else f" of {size} examples, as model {model.name!r} takes them"
        raise OptionError(f"Option data holds no batch{examples}. A generator gives its batches once: make a new one.")


def check_steps(steps: Any) -> None:
    """Refuse what is no number of batches."""
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise OptionError(f"Option steps is {steps!r}; it must be a positive number of batches, or None.")


def until_its_end(batches: Iterator[Any], steps: int | None) -> Iterator[Any]:
    """The batches of an iterator: so many, or all.

    Raises:
        OptionError: if it does not tell its end, and does not come to it within reason.
    """
    yield from islice(batches, _MOST if steps is None and not tells_its_end(batches) else steps)
    if steps is None and not tells_its_end(batches) and any(True for _ in islice(batches, 1)):
        raise _endless(f"has not ended after {_MOST} batches")


def tells_its_end(batches: Iterator[Any]) -> bool:
    """Whether it is known of an iterator that it ends: it knows how long it is, or was cut by `itertools.islice`."""
    return isinstance(batches, islice) or operator.length_hint(batches, -1) >= 0


def _taken_apart(data: Any, size: int) -> tuple[Iterator[Any], float | None]:
    """The batches of data, and how many there are, see `_keras.batches_of`."""
    try:
        return _keras.batches_of(data, batch_size=size)
    except Exception as error:
        raise OptionError(
            f"Option data cannot be taken batch by batch: {quoted(error)}. It must be arrays of one length in the "
            "structure of the model's inputs, a tf.data.Dataset, a keras.utils.PyDataset, or a generator of batches."
        ) from error


def first_batch(data: Any) -> Any:
    """The inputs of the first batch of data, `None` where that would use it up.

    Raises:
        OptionError: if the data is nothing that `batches` takes.
    """
    if isinstance(data, Iterator):
        return None
    return keras.utils.unpack_x_y_sample_weight(next(iter(_taken_apart(data, _BATCH)[0])))[0]


def _tensors(model: keras.Model, inputs: Any) -> list[Any]:
    specs = keras.tree.flatten(model.inputs)
    functional = _keras.functional_of(model)
    if isinstance(inputs, dict):  # which may hold more than the model takes
        structure = _keras.input_structure(functional)
        names = [*structure] if isinstance(structure, dict) else [spec.name for spec in specs]
        if missing := [name for name in names if name not in inputs]:
            raise _misfit(model, f"it lacks {listed(missing)}, and holds {listed(inputs) or 'nothing'}")
        inputs = {name: inputs[name] for name in names}
    leaves = keras.tree.flatten(inputs)
    if len(leaves) != len(specs):
        raise _misfit(
            model,
            f"it has {len(specs)} inputs, the data {len(leaves)}",
            "" if len(specs) > 1 else " Examples go in as numpy.stack(examples), a list of batches as iter(batches).",
        )
    try:
        tensors = _keras.standardized_inputs(functional, inputs)
    except Exception as error:
        shapes = [[tuple(getattr(each, "shape", ())) for each in side] for side in (specs, leaves)]
        told = [*map(len, shapes[0])] == [*map(len, shapes[1])] or any(leaf is None for leaf in leaves)
        cause = quoted(error) if told else f"its inputs have the shapes {shapes[0]}, the data {shapes[1]}"
        raise _misfit(model, cause) from error
    for spec, tensor in zip(specs, tensors, strict=True):
        if tensor is None:  # an optional input that is left out
            continue
        expected, got = tuple(spec.shape[1:]), tuple(tensor.shape[1:])
        if any(size not in (None, own) for size, own in zip(expected, got, strict=True)):
            raise _misfit(model, f"input {spec.name!r} has shape {expected}, the data {got}")
    return tensors


def _misfit(model: keras.Model, cause: str, more: str = "") -> OptionError:
    return OptionError(
        f"Option data does not fit the inputs of model {model.name!r}: {cause}. Pass the inputs, without targets, in "
        f"the structure in which the model is called, with the batch as the first axis.{more}"
    )


def _endless(what: str) -> OptionError:
    return OptionError(f"Option data {what}. Give a part of it: itertools.islice(data, 100) is its next 100 batches.")
