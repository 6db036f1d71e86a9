"""The precision that a model is served in: ONNX Runtime lacks most of bfloat16, float16 and float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import keras

from kerasbn import _keras
from kerasbn.errors import OptionError

Precision = Literal["float32", "keep"]
"""Everything in float32, or whatever the model computes in."""

_CAST = ("float16", "bfloat16", "float64")


def check_precision(precision: str) -> None:
    """Refuse what is no precision.

    Raises:
        OptionError: for a name that stands for none.
    """
    if precision not in get_args(Precision):
        known = " or ".join(map(repr, get_args(Precision)))
        raise OptionError(f"Option precision is {precision!r}; it must be {known}.")


def serving_dtype(dtype: str, precision: Precision = "float32") -> str:
    """The type that a value of this type has when served."""
    return "float32" if precision == "float32" and dtype in _CAST else dtype


def other_precisions(model: keras.Model, precision: Precision) -> list[str]:
    """What the layers of a model compute in that are to compute in float32 instead."""
    return sorted({layer.compute_dtype for layer in _layers_of_other_precisions(model, precision)})


@contextlib.contextmanager
def computing_in(precision: Precision, model: keras.Model) -> Iterator[None]:
    """Let the layers of a model compute in a precision while the context lasts; variables keep their types.

    Quantized layers stay as they are.
    """
    with _computing("float32", _layers_of_other_precisions(model, precision)):
        yield


@contextlib.contextmanager
def computing_exactly(model: keras.Model) -> Iterator[None]:
    """Let all layers of a model that compute in floating types compute in float64, as `computing_in` does."""
    layers = _keras.sublayers(model)
    with _computing("float64", [layer for layer in layers if keras.backend.is_float_dtype(layer.compute_dtype)]):
        yield


@contextlib.contextmanager
def _computing(dtype: str, layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    before = [(layer, layer.dtype_policy) for layer in layers if layer.dtype_policy.quantization_mode is None]
    try:
        for layer, policy in before:
            layer.dtype_policy = _Computing(dtype, policy.variable_dtype)
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def _layers_of_other_precisions(model: keras.Model, precision: Precision) -> list[keras.layers.Layer]:
    layers = _keras.sublayers(model) if precision == "float32" else []
    return [layer for layer in layers if layer.compute_dtype in _CAST and layer.dtype_policy.quantization_mode is None]


class _Computing(keras.DTypePolicy):  # type: ignore[misc]  # Keras ships no types
    """Computes in one type with variables of another, a pair that Keras may have no name for."""

    def __init__(self, dtype: str, variable_dtype: str) -> None:
        super().__init__(dtype)
        self._given = variable_dtype

    @property
    def variable_dtype(self) -> str:
        return self._given
