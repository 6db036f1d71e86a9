"""One model of several: their weights averaged, with statistics of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import keras

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.errors import OptionError
from kerasbn.loading.load import load
from kerasbn.source.source import Source
from kerasbn.statistics.calibration import calibrate
from kerasbn.turns import in_turn

ModelOrFile: TypeAlias = keras.Model | str | os.PathLike[str]


def average(
    models_or_files: Sequence[ModelOrFile], data: Any, steps: int | None = None, *, synchronized: bool = False
) -> keras.Model:
    """Average the weights of several models of one architecture, and measure the statistics of the result.

    For the checkpoints of one training (stochastic weight averaging) or several fine-tunings of one model (a model
    soup). The statistics of batch normalization are none that averaging could find: those of the averaged network are
    measured, `kerasbn.calibrate`. Networks that were trained apart from the start average to nothing of use.

    Example:

    ```python
    model = kerasbn.average(sorted(Path("checkpoints").glob("epoch_*.keras"))[-5:], x)
    ```

    Args:
        models_or_files: Models, or files of them as for `kerasbn.load`; one is in memory at a time.
        data: A sample of the inputs of training, as for `kerasbn.calibrate`.
        steps: How many batches of it to take. Defaults to `None`: all there are.
        synchronized: Whether each of several processes gives a share of the data, as for `kerasbn.calibrate`. Defaults
            to `False`.

    Returns:
        A new model, compiled as the first is. Weights that are no floats are those of the first.

    Raises:
        OptionError: if there is no model, their weights differ in number or shape, or the data does not fit.
        ModelFileError: if a file cannot be read.
        UnsupportedModelError: if the first cannot be copied faithfully.

    Reference:

    - [Izmailov et al., 2018](https://arxiv.org/abs/1803.05407), stochastic weight averaging.
    - [Wortsman et al., 2022](https://arxiv.org/abs/2203.05482), model soups, uniform.
    """
    members = [*models_or_files]
    if not members or isinstance(models_or_files, str):
        raise OptionError(f"Option models_or_files is {models_or_files!r}; it must be a list of models or files.")
    return averaged(map(_model, members), data, steps, synchronized=synchronized)


def averaged(
    members: Iterable[keras.Model], data: Any, steps: int | None = None, *, synchronized: bool = False
) -> keras.Model:
    """The same of models that come one by one, at least one."""
    count = 0
    for count, member in enumerate(members, 1):
        if count == 1:
            result = _copied(member)
            sums = [array_of(weight) if _is_float(weight) else None for weight in result.weights]
        else:
            _add(sums, result, member, f"number {count}")
        del member
    for weight, total in zip(result.weights, sums, strict=True):
        if total is not None:
            _keras.set_value(weight, total / count)
    return calibrate(result, data, steps, frozen=True, synchronized=synchronized)


@in_turn()
def _copied(model: keras.Model) -> keras.Model:
    source = Source.of(model, copy=True)
    with _keras.scope_of(model):
        return source.build(source.graph).model


def _model(member: ModelOrFile) -> keras.Model:
    return member if isinstance(member, keras.Model) else load(member)


def _add(sums: list[Array | None], first: keras.Model, model: keras.Model, which: str) -> None:
    """Add the weights of a model to sums of those of others."""
    shapes, others = ([tuple(weight.shape) for weight in each.weights] for each in (first, model))
    if shapes != others:
        pairs = zip(first.weights, shapes, others, strict=False)
        different = next((weight.path for weight, own, other in pairs if own != other), None)
        what = "they are not as many" if different is None else f"{different!r} has another shape"
        raise OptionError(
            f"Option models_or_files: the weights of {which}, {model.name!r}, are not those of the first, "
            f"{first.name!r}: {what}. Average models of one architecture."
        )
    for index, weight in enumerate(model.weights):
        total = sums[index]
        if total is not None:
            sums[index] = total + array_of(weight)


def _is_float(weight: keras.Variable) -> bool:
    return bool(keras.backend.is_float_dtype(weight.dtype))
