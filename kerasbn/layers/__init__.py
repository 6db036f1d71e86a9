"""Layers that kerasbn adds to Keras, and their conversion into Keras's own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kerasbn.layers.batch_normalization import BatchNormalization as BatchNormalization

if TYPE_CHECKING:
    from kerasbn.conversions import from_keras as from_keras
    from kerasbn.conversions import to_keras as to_keras

# Rewriting models is built on the layers; imported on first use, it may be offered here.
_LAZY = {"from_keras": "kerasbn.conversions", "to_keras": "kerasbn.conversions"}

__all__ = ["BatchNormalization", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'kerasbn.layers' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
