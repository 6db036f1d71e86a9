"""Write `.keras` files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras

from kerasbn import _keras
from kerasbn.exporters.settings import Settings
from kerasbn.verification.interface import Arrays, Interface
from kerasbn.verification.samples import reference


def write(model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
    """Write a model in Keras's own format, compiled state included.

    Returns:
        The number of layers.
    """
    model.save(str(path))
    return len(model.layers)


def runner(path: Path, model: keras.Model, interface: Interface) -> Callable[[Arrays], Arrays]:
    """A function that runs a `.keras` file, loaded with the custom classes of the model it was written from."""
    kinds = {type(layer) for layer in _keras.sublayers(model)}
    classes = {kind.__name__: kind for kind in kinds if not _keras.is_keras_own(kind)}  # Keras has two named Add
    loaded = keras.models.load_model(str(path), custom_objects=classes, compile=False, safe_mode=False)
    return lambda inputs: reference(loaded, interface, inputs)
