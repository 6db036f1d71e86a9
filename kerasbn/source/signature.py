"""What a subclassed model is called on: the structure, shapes and dtypes of its inputs, and values that it accepts.

Keras records the shapes that a model was built for, but no dtypes. So the model is run on a sample: an input that goes
straight into a layer that takes indices or strings is of that kind.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError, line_of, quoted

_DTYPES: Mapping[type, str] = {
    keras.layers.StringLookup: "string",
    keras.layers.TextVectorization: "string",
    keras.layers.IntegerLookup: "int64",
    keras.layers.Embedding: "int32",
    keras.layers.CategoryEncoding: "int32",
}
"""What the layers that take no real numbers take, the more exacting ones first."""

_BATCH = 2
_OPEN = 8
"""The size to try an open axis with."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a model is called on.

    Attributes:
        specs: Symbolic tensors in the structure of the inputs; the batch is open.
        takers: For each of them, flat, the layers that tell which values it may have.
        example: A batch, if one was given.
    """

    specs: Any
    takers: tuple[tuple[keras.layers.Layer, ...], ...]
    example: Any = None

    @property
    def shapes(self) -> Any:
        """The shapes of the inputs, in their structure, the batch open."""
        return keras.tree.map_structure(lambda spec: spec.shape, self.specs)

    def values(self) -> Any:
        """A batch that the model accepts, as tensors: the example, else random values."""
        if self.example is not None:
            cast = lambda array, spec: keras.ops.convert_to_tensor(array, spec.dtype)  # noqa: E731
            return keras.tree.map_structure(cast, self.example, self.specs)
        return _drawn(self.specs, self.takers)


def signature_of(model: keras.Model, example: Any = None) -> Signature:
    """Find out what a model is called on.

    Args:
        model: A subclassed model.
        example: A batch of its inputs. Defaults to `None`: the shapes that the model was built for,
            else the default of the argument of its `build`.

    Raises:
        UnsupportedModelError: if that does not show.
    """
    if type(model).call is keras.Model.call:
        raise _unknown(
            model, "has no call, so what it computes is not known. Take the models among its attributes one by one"
        )
    if not model.built:
        raise _unknown(model, "was never called or built, so its inputs are not known. Call it on a batch first")
    if len(arguments := _arguments(model)) > 1:
        raise _unknown(
            model,
            f"takes {', '.join(arguments)} in its call, where a functional model takes one structure. Let it take a "
            "list or dict of them",
        )
    shapes = _shapes(model)
    if example is not None:
        specs = keras.tree.map_structure(_spec_of, example)
        return Signature(_opened(specs, shapes), ((),) * len(keras.tree.flatten(specs)), example)
    if shapes is None:
        raise _unknown(
            model, "was built without telling for which inputs. Pass a batch of them: kerasbn.rewrite(model, inputs=x)"
        )
    specs = keras.tree.map_shape_structure(lambda shape: keras.KerasTensor((None, *shape[1:])), shapes)
    return _refined(model, specs)


def _arguments(model: keras.Model) -> list[str]:
    """The arguments that the call of a model cannot do without."""
    parameters = inspect.signature(model.call).parameters.values()
    return [each.name for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD]


def _shapes(model: keras.Model) -> Any:
    recorded = _keras.built_shapes(model)
    if recorded is not None:
        return recorded
    parameters = list(inspect.signature(type(model).build).parameters.values())[1:]
    return parameters[0].default if parameters and isinstance(parameters[0].default, tuple | list | dict) else None


def _spec_of(array: Any) -> keras.KerasTensor:
    array = array if hasattr(array, "shape") and hasattr(array, "dtype") else np.asarray(array)
    kind = getattr(np.dtype(array.dtype) if isinstance(array, np.ndarray) else None, "kind", "")
    dtype = "string" if kind in ("U", "S", "O") else keras.backend.standardize_dtype(array.dtype)
    if keras.backend.is_float_dtype(dtype):
        dtype = keras.config.floatx()
    return keras.KerasTensor((None, *array.shape[1:]), dtype=dtype)


def _opened(specs: Any, shapes: Any) -> Any:
    """The specs of an example, with axes open where the model was built for other sizes."""
    flat: list[Any] = []
    if shapes is not None:
        keras.tree.map_shape_structure(flat.append, shapes)
    if [len(shape) for shape in flat] != [len(spec.shape) for spec in keras.tree.flatten(specs)]:
        return specs
    opened = [
        keras.KerasTensor(
            tuple(size if size == own else None for size, own in zip(spec.shape, shape, strict=True)), dtype=spec.dtype
        )
        for spec, shape in zip(keras.tree.flatten(specs), flat, strict=True)
    ]
    return keras.tree.pack_sequence_as(specs, opened)


def _refined(model: keras.Model, specs: Any) -> Signature:
    """The dtypes of a model's inputs, by the layers that take them."""
    dtypes = [keras.config.floatx()] * len(keras.tree.flatten(specs))
    watched = [layer for layer in _keras.sublayers(model) if isinstance(layer, tuple(_DTYPES))]
    takers: list[tuple[keras.layers.Layer, ...]] = [()] * len(dtypes)
    while True:
        takers, failure = _run(model, _drawn(_with_dtypes(specs, dtypes), takers, model.compute_dtype), watched)
        found = [_dtype(layers) or dtype for layers, dtype in zip(takers, dtypes, strict=True)]
        if found == dtypes and failure is not None and keras.config.floatx() in dtypes:
            found = ["int32" if dtype == keras.config.floatx() else dtype for dtype in dtypes]
        if found == dtypes:
            break
        dtypes = found
    if failure is not None:
        raise _unknown(
            model,
            f"cannot be called on numbers of the shapes that it was built for, at {line_of(failure)}: "
            f"{quoted(failure)}. Pass a batch of inputs: kerasbn.rewrite(model, inputs=x)",
        )
    return Signature(_with_dtypes(specs, dtypes), tuple(takers))


def _run(
    model: keras.Model, inputs: Any, watched: list[keras.layers.Layer]
) -> tuple[list[tuple[keras.layers.Layer, ...]], Exception | None]:
    """Which of the watched layers each input goes straight into, and what went wrong."""
    flat = keras.tree.flatten(inputs)
    takers: list[tuple[keras.layers.Layer, ...]] = [()] * len(flat)

    def note(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> None:
        for index, tensor in enumerate(flat):
            if any(each is tensor for each in keras.tree.flatten((args, kwargs))):
                takers[index] = (*takers[index], layer)

    try:
        with keras.StatelessScope(), _keras.observed(watched, note):
            model(inputs, training=False)
    except Exception as error:  # whatever the user's own code raises
        return takers, error
    return takers, None


def _with_dtypes(specs: Any, dtypes: list[str]) -> Any:
    flat = zip(keras.tree.flatten(specs), dtypes, strict=True)
    return keras.tree.pack_sequence_as(specs, [keras.KerasTensor(spec.shape, dtype=dtype) for spec, dtype in flat])


def _dtype(takers: tuple[keras.layers.Layer, ...]) -> str | None:
    return next((dtype for kind, dtype in _DTYPES.items() if any(isinstance(each, kind) for each in takers)), None)


def _drawn(specs: Any, takers: Sequence[tuple[keras.layers.Layer, ...]], compute_dtype: str | None = None) -> Any:
    """Values for inputs: positive real numbers, of one dtype if it is given, and others that their takers know."""
    generator = np.random.default_rng(0)

    def draw(spec: keras.KerasTensor, layers: tuple[keras.layers.Layer, ...]) -> Any:
        shape = (_BATCH, *(size or _OPEN for size in spec.shape[1:]))
        if keras.backend.is_float_dtype(spec.dtype):
            values = np.abs(generator.normal(size=shape)).astype("float32")
            return keras.ops.convert_to_tensor(values, compute_dtype or spec.dtype)
        return keras.ops.convert_to_tensor(generator.choice(_known(spec, layers), shape), spec.dtype)

    return keras.tree.pack_sequence_as(specs, list(map(draw, keras.tree.flatten(specs), takers)))


def _known(spec: keras.KerasTensor, takers: tuple[keras.layers.Layer, ...]) -> Any:
    """Values of no real numbers that every one of these layers knows."""
    sizes = [layer.input_dim for layer in takers if isinstance(layer, keras.layers.Embedding)]
    words = [layer.get_vocabulary() for layer in takers if hasattr(layer, "get_vocabulary")]
    if words:
        return np.array(words[0][-20:])
    return np.array(["a", "b"]) if spec.dtype == "string" else np.arange(min([*sizes, 2]))


def _unknown(model: keras.Model, cause: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"Model {model.name!r} is a {type(model).__name__}; it {cause}.")
