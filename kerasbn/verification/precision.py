"""Serve in float32 whatever the model computes in: ONNX Runtime lacks most of bfloat16, float16 and float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from kerasbn import _keras

_CAST = ("float16", "bfloat16", "float64")


def serving_dtype(dtype: str) -> str:
    """The type that an input of this type has when served."""
    return "float32" if dtype in _CAST else dtype


@contextlib.contextmanager
def computing_in_float32(model: keras.Model) -> Iterator[None]:
    """Let the layers of a model compute in float32 while the context lasts; variables keep their types.

    Quantized layers stay as they are.
    """
    before = [
        (layer, layer.dtype_policy)
        for layer in _keras.sublayers(model)
        if layer.compute_dtype in _CAST and layer.dtype_policy.quantization_mode is None
    ]
    try:
        for layer, policy in before:
            layer.dtype_policy = _Float32(policy.variable_dtype)
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


class _Float32(keras.DTypePolicy):  # type: ignore[misc]  # Keras ships no types
    """Computes in float32 with variables of a given type, a pair that Keras has no name for."""

    def __init__(self, variable_dtype: str) -> None:
        super().__init__("float32")
        self._given = variable_dtype

    @property
    def variable_dtype(self) -> str:
        return self._given
