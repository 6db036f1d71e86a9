"""Variables: how they come into being and get their values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras.src.utils.module_utils import jax  # imported where an attribute of theirs is first asked for

from kerasbn._keras.processes import own_copy
from kerasbn._keras.running import every_call_made, is_traced


@contextlib.contextmanager
def beginnings() -> Iterator[list[tuple[keras.Variable, Callable[[], Any]]]]:
    """The variables that come into being inside, in their order, each with what gives the value that it begins with.

    `Variable._initialize` is gone through by each of them, also where a function is being compiled.
    """
    noted: list[tuple[keras.Variable, Callable[[], Any]]] = []
    initialize = keras.Variable._initialize

    def note(variable: keras.Variable, value: Any) -> None:
        if callable(value):
            noted.append((variable, value))
        elif not is_traced(value):
            array = np.array(keras.ops.convert_to_numpy(value))
            noted.append((variable, lambda: array))
        initialize(variable, value)

    keras.Variable._initialize = note
    try:
        yield noted
    finally:
        keras.Variable._initialize = initialize


@contextlib.contextmanager
def deferred_variables() -> Iterator[None]:
    """Variables made inside get their values when the context ends, from `set_value` where it was called.

    So no weight is drawn at random only to be overwritten. Keras refuses a variable that is made
    from an array here, with a `ValueError` for which see `refused_to_defer`. A function that is compiled
    here would hold on to what a variable has in the meantime, so none is.
    """
    with keras.StatelessScope(), every_call_made():
        yield


def set_value(variable: Any, value: Any) -> None:
    """Give a variable a copy of a value: at once, or when the enclosing `deferred_variables` ends.

    The one way to do so. What shares its memory with another is lost with it: in training torch writes to it, and
    JAX frees it. TensorFlow shares the memory of both until one of them is written to.

    Args:
        variable: The variable, of Keras or, once it has a value, of TensorFlow.
        value: Another variable, a tensor, an array, or a number for all of its elements.
    """
    if not isinstance(variable, keras.Variable):
        variable.assign(value)
    elif variable._value is None:
        variable._initializer = lambda shape, dtype=None: _placed(variable, _filling(shape, dtype, value))
    else:
        variable.assign(_placed(variable, _filling(variable.shape, variable.dtype, value)))


def _placed(variable: keras.Variable, value: Any) -> Any:
    """A value laid out as a variable is that several processes share: JAX would ask all whether it is the same there.

    By `Variable._layout`, which Keras has by the time that a variable gets a value.
    """
    layout = getattr(variable, "_layout", None)
    sharding = getattr(layout, "backend_layout", layout)
    if keras.backend.backend() != "jax" or sharding is None or sharding.is_fully_addressable:
        return value
    whole = np.asarray(value)
    return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)


def _filling(shape: Any, dtype: Any, value: Any) -> Any:
    if isinstance(value, float):
        return keras.ops.full(shape, value, dtype)
    if isinstance(value, keras.Variable):
        value = own_copy(value)
    return keras.ops.copy(keras.ops.cast(keras.ops.convert_to_tensor(value), dtype))


def refused_to_defer(error: ValueError) -> bool:
    return "while in a stateless scope" in str(error)


@contextlib.contextmanager
def variables_within(limit: int) -> Iterator[None]:
    """Refuse variables with more elements together than a limit, before they take memory.

    Raises:
        ValueError: where the limit is passed. `Variable._initialize_with_initializer` knows the shape by then.
    """
    initialize = keras.Variable._initialize_with_initializer
    total = 0

    def counted(variable: keras.Variable, initializer: Any) -> None:
        nonlocal total
        total += math.prod(variable.shape)
        if total > limit:
            raise ValueError(
                f"its weight {variable.path!r} of shape {tuple(variable.shape)} is out of proportion to the file"
            )
        initialize(variable, initializer)

    keras.Variable._initialize_with_initializer = counted
    try:
        yield
    finally:
        keras.Variable._initialize_with_initializer = initialize
