"""What several processes hold together, and a process by itself."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras.src.utils.module_utils import jax, tensorflow  # imported where an attribute of theirs is first asked for

from kerasbn._keras.seeds import global_seed_variables


@contextlib.contextmanager
def undistributed() -> Iterator[None]:
    """Inside, Keras makes and runs in this process what `keras.distribution` would spread over several.

    The seeds that it draws meanwhile are drawn again afterwards: what several processes make next they make alike.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        yield
        return
    seeds = random.getstate(), [(each, each.value) for each in global_seed_variables()]
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
        random.setstate(seeds[0])
        for variable, value in seeds[1]:
            variable.assign(value)


def scope_of(model: Any) -> Any:
    """Where to make what is to train as a model does: the scope of its `tf.distribute` strategy, unless one is open.

    By `Model._distribute_strategy`, which is none where the model was made outside of any.
    """
    strategy = getattr(model, "_distribute_strategy", None)
    if strategy is None or tensorflow.distribute.has_strategy():
        return contextlib.nullcontext()
    return strategy.scope()


def is_shared(model: keras.Model) -> bool:
    """Whether several processes hold the variables of a model together, as JAX's do with `keras.distribution`."""
    return keras.backend.backend() == "jax" and any(
        isinstance(each.value, jax.Array) and not each.value.is_fully_addressable for each in model.variables
    )


def own_copy(variable: keras.Variable) -> Any:
    """The value of a variable; where several processes share it, put together from what this one holds.

    Raises:
        ValueError: if that is no more than a part of it.
    """
    value = variable.value
    if keras.backend.backend() != "jax" or value.is_fully_addressable:
        return value
    if value.is_fully_replicated:
        return value.addressable_data(0)
    whole, missing = np.empty(value.shape, value.dtype), np.ones(value.shape, bool)
    for shard in value.addressable_shards:
        whole[shard.index], missing[shard.index] = shard.data, False
    if missing.any():
        raise ValueError(
            f"of {variable.path!r} this process holds only a part. Lay the mesh out so that the axis of the model is "
            "within a process, or load the model without keras.distribution"
        )
    return whole
