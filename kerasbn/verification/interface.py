"""The names of a model's inputs and outputs, stable from run to run."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError


def input_tensors(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """The symbolic inputs of a model, flat, by name: the key that each has in a dict, else its input layer's name.

    Raises:
        UnsupportedModelError: for a model that has no symbolic inputs.
    """
    structure = _keras.input_structure(_functional(model))
    # Not the tensor's name: that of a nameless input is counted up anew in every process.
    layers = [_keras.input_layer_of(tensor).name for tensor in keras.tree.flatten(structure)]
    return _by_name(structure, layers, taken=set())


def output_tensors(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """The symbolic outputs of a model, flat, by name: the key that each has in a dict, else `Model.output_names`."""
    functional = _functional(model)
    return _by_name(_keras.output_structure(functional), functional.output_names, taken=set(input_tensors(model)))


def pack_inputs(model: keras.Model, flat: list[Any]) -> Any:
    """Put flat inputs into the structure that the model takes."""
    return keras.tree.pack_sequence_as(_keras.input_structure(_functional(model)), flat)


def flat_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """Bring inputs of the model's structure, or a dictionary by name, into the order of `input_tensors`."""
    names = input_tensors(model)
    if isinstance(inputs, dict) and names.keys() <= inputs.keys():
        return [inputs[name] for name in names]
    return list(keras.tree.flatten(inputs))


def _by_name(structure: Any, layers: Iterable[str], taken: Collection[str]) -> dict[str, keras.KerasTensor]:
    leaves = keras.tree.flatten_with_path(structure)
    keys = [path[-1] if path and isinstance(path[-1], str) else None for path, _ in leaves]
    names = [key or layer for key, layer in zip(keys, layers, strict=True)]
    return dict(zip(_distinct(names, taken), (tensor for _, tensor in leaves), strict=True))


def _functional(model: keras.Model) -> Any:
    functional = _keras.functional_of(model)
    if functional is None:
        raise UnsupportedModelError(
            f"Model {getattr(model, 'name', model)!r} has no symbolic inputs, so it cannot be exported: it was not "
            "built. Call model.build(input_shape), or make it with keras.Model(inputs, outputs)."
        )
    return functional


def _distinct(names: Sequence[str], taken: Collection[str]) -> Iterator[str]:
    """The names, each once: what repeats gets a number, which makes it none that another one has by itself."""
    given = set(taken)
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        free = (each for each in numbered if each not in given and each not in names)
        unique = next(free) if name in given else name
        given.add(unique)
        yield unique
