"""The statistics of another domain for a while: adaptive batch normalization (Li et al., 2016)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from kerasbn.catalog.norms import norms_in
from kerasbn.statistics.calibration import calibrate, put_back, statistics_of


@contextlib.contextmanager
def adapted(
    model: keras.Model,
    data: Any,
    layers: str | Iterable[str] = "*",
    blend: float = 1.0,
    *,
    synchronized: bool = False,
) -> Iterator[keras.Model]:
    """Inside of a `with`, a model has the statistics of other data; afterwards its own again, bit for bit.

    For a model that is to work on what looks unlike its training data: another camera, scanner or season. No label
    is needed. What batch normalization cannot undo, such as new shapes or other proportions of the classes, is not
    helped; statistics of very few examples do harm where little has changed: let them count for less by `blend`.

    Example:

    ```python
    with kerasbn.adapted(model, x_target):
        predictions = model.predict(x_target)
    ```

    Args:
        model: A Keras model, changed in place inside.
        data: A sample of the inputs to come, as for `kerasbn.calibrate`.
        layers: A glob over the paths of batch normalizations, or several; frozen ones too. Defaults to `"*"`: all.
        blend: How much the new statistics count against the model's own, from 0 to 1. Defaults to `1.0`. For n new
            examples Schneider et al. (2020) use n / (n + N), with N about 16.
        synchronized: Whether each of several processes gives a share of the data, as for `kerasbn.calibrate`. Defaults
            to `False`.

    Yields:
        The model.

    Raises:
        OptionError: as `kerasbn.calibrate` does.
        UnsupportedModelError: likewise.

    Reference:

    - [Li et al., 2016](https://arxiv.org/abs/1603.04779), adaptive batch normalization.
    - [Schneider et al., 2020](https://arxiv.org/abs/2006.16971), blended with the model's own.
    """
    kept = statistics_of(norms_in(model))
    try:
        yield calibrate(model, data, layers=layers, frozen=True, blend=blend, synchronized=synchronized)
    finally:
        put_back(kept)
