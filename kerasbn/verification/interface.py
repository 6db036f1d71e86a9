"""How a model is served: the names, shapes and types of its inputs and outputs, stable from run to run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import OptionError, UnsupportedModelError
from kerasbn.verification.precision import Precision, serving_dtype

Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
"""Arrays by the name of the input or output."""


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output of a served model.

    Attributes:
        name: Its name.
        shape: Its shape, the batch first. `None` where a size is open.
        dtype: Its type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        sizes = ", ".join("batch" if axis == 0 and size is None else str(size) for axis, size in enumerate(self.shape))
        return f"{self.dtype} ({sizes})".replace("None", "?")


@dataclasses.dataclass(frozen=True)
class Interface:
    """How a model is served.

    Attributes:
        inputs: Its inputs, in the model's order.
        outputs: Its outputs, in the model's order.
        precision: What it computes in.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    precision: Precision = "float32"

    def with_sizes(self, sizes: Mapping[tuple[str, int], int]) -> Interface:
        """With sizes for axes of inputs that are open, by the input's name and the axis."""
        if not sizes:
            return self

        def sized(port: Port) -> Port:
            shape = tuple(sizes.get((port.name, axis), size) for axis, size in enumerate(port.shape))
            return dataclasses.replace(port, shape=shape)

        return dataclasses.replace(self, inputs=tuple(map(sized, self.inputs)))


def interface_of(
    model: keras.Model, names: Mapping[str, str] | None = None, precision: Precision = "float32"
) -> Interface:
    """How a model is served, with its own names, or others for some of them.

    Raises:
        UnsupportedModelError: for a model that has no symbolic inputs.
        OptionError: for names of what the model does not have, and names that two would share.
    """
    sides = input_tensors(model), output_tensors(model)
    names = dict(names or {})
    own = [name for side in sides for name in side]
    if unknown := sorted(names.keys() - set(own)):
        raise OptionError(
            f"Option names has {', '.join(map(repr, unknown))}, which the model has not. Its inputs are "
            f"{', '.join(map(repr, sides[0]))}, its outputs {', '.join(map(repr, sides[1]))}."
        )
    given = [names.get(name, name) for name in own]
    if twice := sorted({name for name in given if given.count(name) > 1 or not name}):
        raise OptionError(
            f"Option names calls more than one input or output {twice[0]!r}. Give each its own, none an empty one."
        )
    took_a_batch = _keras.took_a_batch(model)  # whose size says nothing
    inputs, outputs = (
        tuple(
            Port(
                names.get(name, name),
                (None, *tensor.shape[1:]) if took_a_batch else tuple(tensor.shape),
                serving_dtype(tensor.dtype, precision),
            )
            for name, tensor in side.items()
        )
        for side in sides
    )
    return Interface(inputs, outputs, precision)


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
