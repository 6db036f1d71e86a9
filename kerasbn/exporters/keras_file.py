"""Write `.keras` files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.exporters.settings import Settings
from kerasbn.verification.interface import Arrays, Interface
from kerasbn.verification.samples import reference

_BY_CLASS = (keras.layers.Layer, keras.Initializer, keras.Regularizer, keras.constraints.Constraint)
"""What a file names by its class."""


def write(model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
    """Write a model in Keras's own format, compiled state included.

    Returns:
        The number of layers.
    """
    with _keras.told_of_its_optimizer(model):
        model.save(str(path))
    return len(model.layers)


def runner(path: Path, model: keras.Model, interface: Interface) -> Callable[[Arrays], Arrays]:
    """A function that runs a `.keras` file, loaded with the classes and functions of the model it was written from."""
    held = [each for layer in _keras.sublayers(model) for each in (layer, *vars(layer).values())]
    kinds = {type(each) for each in held if isinstance(each, _BY_CLASS)}
    # Keras has two classes named Add.
    theirs: dict[str, Any] = {kind.__name__: kind for kind in kinds if not _keras.is_keras_own(kind)}
    theirs |= {each.__name__: each for each in held if isinstance(each, FunctionType)}
    loaded = keras.models.load_model(str(path), custom_objects=theirs, compile=False, safe_mode=False)
    return lambda inputs: reference(loaded, interface, inputs)
