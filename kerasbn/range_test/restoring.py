"""Put a model back as it was, bit for bit."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerasbn import _keras


@contextlib.contextmanager
def restored(model: keras.Model) -> Iterator[None]:
    """Afterwards all that a model holds has the values from before, whatever happens inside: an error, an interrupt.

    That is every variable of it, of its layers, optimizers and metrics: weights, statistics, states,
    slots, seeds. Those that come into being inside get the values that they begin with. The random
    state of Python, NumPy and Keras is as before as well.
    """
    values = [(variable, np.array(variable.numpy())) for variable in held_by(model)]
    python, numpy = random.getstate(), np.random.get_state()
    with _keras.beginnings() as beginnings:
        try:
            yield
        finally:
            for variable, value in values:
                _keras.set_value(variable, value)
            held = {id(variable) for variable in held_by(model)}
            for variable, value_of in beginnings:
                if id(variable) in held:
                    _keras.set_value(variable, value_of())
            random.setstate(python)
            np.random.set_state(numpy)


def held_by(model: keras.Model) -> list[Any]:
    """Every variable in the attributes of a model and of what it is made of, in lists and dicts too, once."""
    found: list[Any] = []
    seen: dict[int, Any] = {}
    waiting = [model, _keras.global_seed_variables()]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if _is_variable(each):
            found.append(each)
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple | set):
            waiting.extend(each)
        elif _keras.is_keras_object(each):
            waiting.extend(getattr(each, "__dict__", {}).values())
    return found


def _is_variable(value: Any) -> bool:
    """Whether something is a variable, Keras's or TensorFlow's."""
    return all(callable(getattr(value, name, None)) for name in ("assign", "numpy"))
