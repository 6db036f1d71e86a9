"""What a written model is verified on: batches that differ along each axis that is open, and what Keras makes of them.

An axis is open only as far as the Keras model runs at more than one size of it; one that it runs at one size of, as
where a table of positions was cut to a length, is given that size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import OptionError, quoted
from kerasbn.verification.interface import Arrays, Interface, Port, input_tensors, pack_inputs
from kerasbn.verification.precision import computing_exactly, computing_in

_BATCHES = (1, 3)
_SIZES: Mapping[int, tuple[int, ...]] = {4: (96, 64, 128, 224)}
_SIZES_ELSE = (16, 24, 8, 32, 4)
"""What to try for an open axis, by the rank of the input: networks that halve images ask for multiples of 32."""

Axis: TypeAlias = tuple[str, int]
"""An axis of an input, by that's name and the axis; the batch is the same axis of all inputs."""

_BATCH: Axis = ("", 0)

Sizes: TypeAlias = Mapping[Axis, int]
"""Sizes of axes that are open."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """A batch of inputs.

    Attributes:
        inputs: The inputs by name.
        expected: The Keras model's outputs by name.
    """

    inputs: Arrays
    expected: Arrays


@dataclasses.dataclass(frozen=True)
class Settled:
    """How a model can be served, as far as it runs.

    Attributes:
        interface: As asked for, but with the sizes of those axes that the model runs at one size of.
        samples: Two batches, which differ along all axes that are open.
        fixed: The sizes that were given to open axes.
    """

    interface: Interface
    samples: tuple[Sample, ...]
    fixed: Sizes


def settled(model: keras.Model, interface: Interface, inputs: Any = None) -> Settled:
    """Find batches that a model runs on.

    Args:
        model: The Keras model.
        interface: How it is to be served.
        inputs: A batch of inputs in the model's structure, or a dictionary by name. Defaults to random ones.

    Raises:
        OptionError: if the given inputs do not fit the model, or it runs on nothing that was tried.
    """
    batches = _Given(model, interface, inputs) if inputs is not None else _Random(model, interface)
    failures: list[tuple[Arrays, Exception]] = []

    def tried(sizes: Sizes) -> Sample | None:
        arrays = batches.of(sizes)
        try:
            return Sample(arrays, reference(model, interface, arrays))
        except Exception as error:  # whatever a layer raises that does not take these sizes
            failures.append((arrays, error))
            return None

    found = next(((sizes, sample) for sizes in batches.first() if (sample := tried(sizes))), None)
    if found is None:
        arrays, error = failures[0]
        shapes = {name: array.shape for name, array in arrays.items()}
        raise OptionError(
            f"Model {model.name!r} cannot be verified on inputs of the shapes "
            f"{shapes}: {quoted(error)}. Pass inputs=, "
            "a batch of examples, or verify=False (--no-verify on the command line)."
        ) from error
    sizes, first = found
    if not sizes:
        return Settled(interface, (first,), {})
    other, second = _other(batches, sizes, tried)
    fixed = {
        (port.name, number): sizes[axis] for port, number, axis in _open_axes(interface) if other[axis] == sizes[axis]
    }
    return Settled(interface.with_sizes(fixed), (first, second) if second else (first,), fixed)


def _other(
    batches: _Random | _Given, sizes: Sizes, tried: Callable[[Sizes], Sample | None]
) -> tuple[Sizes, Sample | None]:
    """Other sizes that the model runs at: of all axes, else of as many as it takes another size of."""
    for others in batches.others(sizes):
        if sample := tried(others):
            return others, sample
    found: tuple[Sizes, Sample | None] = (sizes, None)
    for key, size in sizes.items():
        each = ({**found[0], **alone} for alone in batches.others({key: size}))
        found = next(((others, sample) for others in each if (sample := tried(others))), found)
    return found


def reference(model: keras.Model, interface: Interface, inputs: Arrays) -> Arrays:
    """The Keras model's outputs, in inference mode and as it is served; its state stays as it is."""
    with computing_in(interface.precision, model):
        return _outputs(model, interface, inputs)


def exact_reference(model: keras.Model, interface: Interface, inputs: Arrays) -> Arrays | None:
    """The same in float64, `None` for a model that cannot be computed so."""
    wide = {name: array.astype("float64") if array.dtype.kind == "f" else array for name, array in inputs.items()}
    try:
        with computing_exactly(model):
            return _outputs(model, interface, wide)
    except Exception:  # whatever a layer raises that insists on its own type
        return None


def _outputs(model: keras.Model, interface: Interface, inputs: Arrays) -> Arrays:
    flat = [inputs[port.name] for port in interface.inputs]
    with keras.StatelessScope():
        outputs = model(pack_inputs(model, flat), training=False)
    arrays = [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]
    return dict(zip((port.name for port in interface.outputs), arrays, strict=True))


def _open_axes(interface: Interface) -> list[tuple[Port, int, Axis]]:
    """The inputs with the numbers of their axes that are open, and which these are."""
    ports = interface.inputs
    axes = [(port, number) for port in ports for number, size in enumerate(port.shape) if size is None]
    return [(port, number, (port.name, number) if number else _BATCH) for port, number in axes]


def _turns(choices: Mapping[Axis, tuple[int, ...]]) -> Iterator[Sizes]:
    """One size for each axis: first different ones for different axes, then the first ones, the second ones ..."""
    yield {key: sizes[number % len(sizes)] for number, (key, sizes) in enumerate(choices.items())}
    for turn in range(max(map(len, choices.values()), default=0)):
        yield {key: sizes[turn % len(sizes)] for key, sizes in choices.items()}


class _Random:
    """Random batches: numbers, or words that the model knows."""

    def __init__(self, model: keras.Model, interface: Interface) -> None:
        self._ports, self._open = interface.inputs, _open_axes(interface)
        self._choices = {
            axis: _SIZES.get(len(port.shape), _SIZES_ELSE) if number else _BATCHES for port, number, axis in self._open
        }
        self._words = _words(model) if any(port.dtype == "string" for port in interface.inputs) else []

    def first(self) -> Iterator[Sizes]:
        """The sizes to begin with: the first ones that the model runs at."""
        for turn in range(len(_SIZES_ELSE)):
            yield {axis: each[turn % len(each) if axis[1] else 0] for axis, each in self._choices.items()}

    def others(self, first: Sizes) -> Iterator[Sizes]:
        """The same axes, each with another size."""
        return _turns({key: tuple(each for each in self._choices[key] if each != size) for key, size in first.items()})

    def of(self, sizes: Sizes) -> Arrays:
        """A batch, always the same of the same sizes."""
        generator = np.random.default_rng(sum(sizes.values()))
        shapes = {port.name: list(port.shape) for port in self._ports}
        for port, number, axis in self._open:
            shapes[port.name][number] = sizes[axis]
        return {port.name: self._array(port, shapes[port.name], generator) for port in self._ports}

    def _array(self, port: Port, shape: Sequence[Any], generator: np.random.Generator) -> Any:
        if port.dtype == "string":
            return generator.choice(np.array(self._words, object), size=shape)
        if keras.backend.is_float_dtype(port.dtype):
            return generator.normal(size=shape).astype(port.dtype)
        # 0 and 1 are in every vocabulary.
        return generator.integers(0, 2, size=shape).astype(port.dtype)


class _Given:
    """Batches of the examples that the user gave, cut or repeated to any size."""

    def __init__(self, model: keras.Model, interface: Interface, inputs: Any) -> None:
        self._arrays = _fitting(model, interface, inputs)
        self._open = _open_axes(interface)

    def first(self) -> Iterator[Sizes]:
        """Their own sizes."""
        yield {axis: self._arrays[port.name].shape[number] for port, number, axis in self._open}

    def others(self, first: Sizes) -> Iterator[Sizes]:
        """The same axes, each with another size: of a batch one example, or three of one."""
        return _turns(
            {axis: _other_sizes(size) if axis[1] else (1 if size > 1 else 3,) for axis, size in first.items()}
        )

    def of(self, sizes: Sizes) -> Arrays:
        """A batch."""
        arrays = dict(self._arrays)
        for port, number, axis in self._open:
            array = arrays[port.name]
            arrays[port.name] = np.take(array, np.arange(sizes[axis]) % array.shape[number], number)
        return arrays


def _other_sizes(size: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(each for each in (3 * size // 4, size // 2, 2 * size) if each))


def _fitting(model: keras.Model, interface: Interface, inputs: Any) -> dict[str, Any]:
    own, ports = list(input_tensors(model)), interface.inputs
    by_name = next(
        (names for names in ([port.name for port in ports], own) if isinstance(inputs, dict) and {*names} <= {*inputs}),
        None,
    )
    leaves = [inputs[name] for name in by_name] if by_name else keras.tree.flatten(inputs)
    arrays = [np.asarray(leaf) for leaf in leaves]
    if (
        len(arrays) != len(ports)
        or len({array.shape[:1] for array in arrays}) != 1
        or not all(map(_fits, arrays, ports))
    ):
        raise OptionError(
            f"Option inputs has arrays of the shapes {[array.shape for array in arrays]}; the model takes one batch of "
            f"{', '.join(f'{port.name} {port.shape}' for port in ports)}."
        )
    if any(array.size == 0 for array in arrays):
        raise OptionError(
            f"Option inputs has arrays of the shapes {[array.shape for array in arrays]}, on which nothing can be "
            "verified. Give at least one example."
        )
    return {
        port.name: array if port.dtype == "string" else array.astype(port.dtype)
        for port, array in zip(ports, arrays, strict=True)
    }


def _fits(array: Any, port: Port) -> bool:
    return array.ndim == len(port.shape) and all(
        size in (None, got) for size, got in zip(port.shape, array.shape, strict=True)
    )


def _words(model: keras.Model) -> list[str]:
    """Words from the vocabularies of a model's layers, or any."""
    layers = [layer for layer in _keras.sublayers(model) if hasattr(layer, "get_vocabulary")]
    known = [word for layer in layers for word in layer.get_vocabulary(include_special_tokens=False)]
    return [word for word in known if isinstance(word, str)][:1000] or ["a", "b", "a b", ""]
