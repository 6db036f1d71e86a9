"""Batches of training data over and over, in an order that a seed decides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import OptionError, quoted

_BUFFER = 16
"""Out of how many batches of a dataset the next one is drawn."""


class Batches:
    """Training data in batches.

    Args:
        data: A tuple of arrays, or a `tf.data.Dataset` or `keras.utils.PyDataset`.
        size: How many examples of arrays make a batch.

    Attributes:
        count: How many batches there are in a pass, `None` where that is not known.
    """

    def __init__(self, data: Any, size: int) -> None:
        check_again_and_again(data, "data")
        self._data, self._size = data, size
        self.count: int | None
        if isinstance(data, tuple):
            self._data = _arrays(data, "data")
            self._examples = len(keras.tree.flatten(self._data)[0])
            self._size = min(size, self._examples)
            self.count = self._examples // self._size
        else:
            count = self._pass()[1]
            self.count = int(count) if count is not None and np.isfinite(count) else None

    def in_order_of(self, seed: int) -> Iterator[Any]:
        """Batches without an end. Arrays are shuffled in each pass, without what is left over in the end."""
        generator = np.random.default_rng(seed)
        while True:
            yield from (self._of_arrays if isinstance(self._data, tuple) else self._of_dataset)(generator)

    def _of_arrays(self, generator: np.random.Generator) -> Iterator[Any]:
        order = generator.permutation(self._examples)
        for begin in range(0, self._examples - self._size + 1, self._size):
            rows = order[begin : begin + self._size]
            yield keras.tree.map_structure(lambda leaf, rows=rows: leaf[rows], self._data)

    def _of_dataset(self, generator: np.random.Generator) -> Iterator[Any]:
        held: list[Any] = []
        empty = True
        for batch in self._pass()[0]:
            empty = False
            held.append(batch)
            if len(held) == _BUFFER:
                yield held.pop(int(generator.integers(_BUFFER)))
        if empty:
            raise OptionError("Option data holds no batch.")
        yield from (held[index] for index in generator.permutation(len(held)))

    def _pass(self) -> tuple[Iterator[Any], float | None]:
        return _taken_apart(self._data, self._size, "data")


def check_again_and_again(data: Any, option: str) -> None:
    """Refuse what is no data, or can be gone through only once."""
    if data is None or isinstance(data, Iterator):
        what = "missing" if data is None else f"a {type(data).__name__}, which gives its batches once"
        raise OptionError(
            f"Option {option} is {what}. Every candidate is to have the same: pass arrays (x, y), a tf.data.Dataset "
            "or a keras.utils.PyDataset."
        )
    if isinstance(data, tuple):
        _arrays(data, option)


def check_ends(data: Any, option: str) -> None:
    """Refuse data of which a pass has no batch, or no end."""
    if isinstance(data, tuple):
        return
    _, count = _taken_apart(data, 1, option)
    if count == 0:
        raise OptionError(f"Option {option} holds no batch.")
    if count == math.inf:
        raise OptionError(f"Option {option} never ends. Give a part of it: dataset.take(100) is 100 batches.")


def _taken_apart(data: Any, size: int, option: str) -> tuple[Iterator[Any], float | None]:
    try:
        return _keras.batches_of(data, batch_size=size)
    except Exception as error:
        raise OptionError(
            f"Option {option} cannot be taken batch by batch: {quoted(error)}. It must be arrays (x, y), a "
            "tf.data.Dataset or a keras.utils.PyDataset."
        ) from error


def _arrays(data: tuple[Any, ...], option: str) -> tuple[Any, ...]:
    """The arrays of a tuple, which have the same number of examples."""
    if len(data) not in (2, 3):
        raise OptionError(f"Option {option} is a tuple of {len(data)}; it must be (x, y) or (x, y, sample_weight).")
    arrays: tuple[Any, ...] = keras.tree.map_structure(_array, data)
    sizes = {len(leaf) if leaf.ndim else 0 for leaf in keras.tree.flatten(arrays)}
    if len(sizes) != 1 or 0 in sizes:
        listed = ", ".join(map(str, sorted(sizes)))
        raise OptionError(f"Option {option} has arrays of {listed} examples; they must be as many, and not none.")
    return arrays


def _array(leaf: Any) -> Any:
    return keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)
