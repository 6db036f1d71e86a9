"""The names of a model's inputs and outputs, stable from run to run."""

from __future__ import annotations

from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError


def input_tensors(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """The symbolic inputs of a model, flat, by name: the key in a dict, else the input layer.

    Raises:
        UnsupportedModelError: for a model that has no symbolic inputs.
    """
    structure = _keras.input_structure(_functional(model))
    tensors = keras.tree.flatten(structure)
    # Not the tensor's name: that of a nameless input is counted up anew in every process.
    names = _keys(structure) or [_keras.input_layer_of(tensor).name for tensor in tensors]
    return dict(zip(_distinct(names, taken=set()), tensors, strict=True))


def output_tensors(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """The symbolic outputs of a model, flat, by name: the key in a dict, else the layer that yields it."""
    functional = _functional(model)
    structure = _keras.output_structure(functional)
    names = _keys(structure) or functional.output_names
    return dict(zip(_distinct(names, taken=set(input_tensors(model))), keras.tree.flatten(structure), strict=True))


def pack_inputs(model: keras.Model, flat: list[Any]) -> Any:
    """Put flat inputs into the structure that the model takes."""
    return keras.tree.pack_sequence_as(_keras.input_structure(_functional(model)), flat)


def flat_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """Bring inputs of the model's structure, or a dictionary by name, into the order of `input_tensors`."""
    names = input_tensors(model)
    if isinstance(inputs, dict) and names.keys() <= inputs.keys():
        return [inputs[name] for name in names]
    return list(keras.tree.flatten(inputs))


def _keys(structure: Any) -> list[str]:
    if not isinstance(structure, dict):
        return []
    return [str(path[-1]) for path, _ in keras.tree.flatten_with_path(structure)]


def _functional(model: keras.Model) -> Any:
    functional = _keras.functional_of(model)
    if functional is None:
        raise UnsupportedModelError(
            f"Model {getattr(model, 'name', model)!r} has no symbolic inputs, so it cannot be exported: it is "
            "subclassed or was not built. Call model.build(input_shape), or make it with keras.Model(inputs, outputs)."
        )
    return functional


def _distinct(names: list[str], taken: set[str]) -> list[str]:
    distinct: list[str] = []
    for name in names:
        unique, number = name, 0
        while unique in taken:
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique)
        distinct.append(unique)
    return distinct
