"""Tensors as arrays in float64, the type that kerasbn reckons in."""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def array_of(tensor: Any) -> Array:
    """A tensor or variable as an array in float64."""
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float64)
