"""Put a model back as it was, bit for bit."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import keras
import numpy as np

from kerasbn import _keras


@contextlib.contextmanager
def restored(model: keras.Model) -> Iterator[None]:
    """Afterwards the model is as before, whatever happens inside: an error, an interrupt.

    That is its variables (weights, statistics, states, seeds), its metrics, its optimizer and what
    it was compiled to, and the random state of Python, NumPy and Keras.
    """
    variables = [*model.variables, *model.metrics_variables, *_keras.global_seed_variables()]
    values = [variable.numpy() for variable in variables]
    attributes = {name: getattr(model, name) for name in _keras.TRAINING_ATTRIBUTES}
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for name, value in attributes.items():
            setattr(model, name, value)
        model.reset_metrics()  # some may have come into being
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        random.setstate(python)
        np.random.set_state(numpy)
