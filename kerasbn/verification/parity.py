"""Check that a written model computes what the Keras model computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from kerasbn.errors import OptionError, VerificationError, quoted
from kerasbn.verification.interface import flat_inputs, input_tensors, output_tensors, pack_inputs
from kerasbn.verification.precision import computing_in_float32, serving_dtype

Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
"""Arrays by the name of the input or output."""

_BATCHES = (1, 3)
_OPEN_DIMENSION = {2: 16, 3: 16, 4: 96, 5: 16}
"""The size to try an open dimension with, by the rank of the input."""


def check_parity(
    model: keras.Model,
    candidate: Callable[[Arrays], Arrays],
    what: str,
    *,
    inputs: Any = None,
    tolerance: float = 1e-4,
) -> float:
    """Compare a written model with the Keras model it came from, at batch 1 and at a larger one.

    Where a deep network amplifies rounding, the tolerance grows to 30 times what a relative change
    of 1e-6 in its input does.

    Args:
        model: The Keras model.
        candidate: Computes the written model's outputs.
        what: The name of the written model, for the message.
        inputs: A batch of inputs in the model's structure. Defaults to random ones.
        tolerance: Max |difference| allowed, relative to max |output|. Defaults to 1e-4.

    Returns:
        The greatest difference, relative to the greatest output.

    Raises:
        VerificationError: if the two differ, or the written model cannot be run.
        OptionError: if the Keras model cannot be run on these inputs.
    """
    return max(_compare(model, candidate, what, batch, tolerance) for batch in _batches(model, inputs))


def reference(model: keras.Model, inputs: Arrays) -> Arrays:
    """The Keras model's outputs, in inference mode and in float32; its state stays as it is."""
    with keras.StatelessScope(), computing_in_float32(model):
        outputs = model(pack_inputs(model, list(inputs.values())), training=False)
    flat = [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]
    return dict(zip(output_tensors(model), flat, strict=True))


def _compare(
    model: keras.Model, candidate: Callable[[Arrays], Arrays], what: str, inputs: Arrays, tolerance: float
) -> float:
    shapes = {name: array.shape for name, array in inputs.items()}
    try:
        expected = reference(model, inputs)
    except Exception as error:
        raise OptionError(
            f"Model {model.name!r} cannot be verified on inputs of the shapes {shapes}: {quoted(error)}. Pass inputs=, "
            "a batch of examples, or verify=False (--no-verify on the command line)."
        ) from error
    try:
        got = candidate(inputs)
    except Exception as error:
        raise VerificationError(f"{what} cannot be run on inputs of the shapes {shapes}: {quoted(error)}.") from error
    if got.keys() != expected.keys():
        raise VerificationError(f"{what} has the outputs {sorted(got)} instead of {sorted(expected)}.")
    nudged = reference(model, {name: _nudged(array) for name, array in inputs.items()})
    return max(_error(name, expected[name], got[name], nudged[name], what, tolerance) for name in expected)


def _error(name: str, expected: Any, got: Any, nudged: Any, what: str, tolerance: float) -> float:
    expected, got, nudged = (np.asarray(array, np.float64) for array in (expected, got, nudged))
    if expected.shape != got.shape:
        raise VerificationError(f"Output {name!r} of {what} has the shape {got.shape} instead of {expected.shape}.")
    if expected.size == 0:
        return 0.0
    finite = np.isfinite(expected)
    scale: float = max(float(np.max(np.abs(expected[finite]), initial=0.0)), float(np.finfo(np.float32).tiny))
    differences = np.where(finite, np.abs(expected - got), 0.0)
    amplified = 30 * float(np.max(np.where(finite, np.abs(expected - nudged), 0.0)))
    error = float(np.max(differences))
    if not np.array_equal(finite, np.isfinite(got)) or not error <= max(tolerance * scale, amplified):
        raise VerificationError(
            f"Output {name!r} of {what} differs from the Keras model's by {error:.3g}, where {scale:.3g} is its "
            f"greatest value; {tolerance:g} of that is allowed. Nothing was kept. Please report the model's layers; "
            "without verification it is written all the same."
        )
    return error / scale


def _nudged(array: Any) -> Any:
    return array * array.dtype.type(1 + 1e-6) if array.dtype.kind == "f" else array


def _batches(model: keras.Model, inputs: Any) -> list[Arrays]:
    tensors = input_tensors(model)
    if inputs is None:
        return [_random(tensors, batch) for batch in _BATCHES]
    flat = [np.asarray(array) for array in flat_inputs(model, inputs)]
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if len(flat) != len(shapes) or len({array.shape[:1] for array in flat}) != 1 or not all(map(_fits, flat, shapes)):
        raise OptionError(
            f"Option inputs has arrays of the shapes {[array.shape for array in flat]}; the model takes one batch of "
            f"{', '.join(f'{name} {shape}' for name, shape in zip(tensors, shapes, strict=True))}."
        )
    given = {
        name: array.astype(serving_dtype(tensor.dtype)) if tensor.dtype != "string" else array
        for (name, tensor), array in zip(tensors.items(), flat, strict=True)
    }
    if any(tensor.shape[0] is not None for tensor in tensors.values()):
        return [given]
    return [{name: array[:1] for name, array in given.items()}, given]


def _fits(array: Any, shape: tuple[int | None, ...]) -> bool:
    return array.ndim == len(shape) and all(size in (None, got) for size, got in zip(shape, array.shape, strict=True))


def _random(tensors: Mapping[str, keras.KerasTensor], batch: int) -> Arrays:
    generator = np.random.default_rng(batch)
    return {name: _random_array(name, tensor, batch, generator) for name, tensor in tensors.items()}


def _random_array(name: str, tensor: keras.KerasTensor, batch: int, generator: np.random.Generator) -> Any:
    shape = [
        size if size is not None else batch if axis == 0 else _OPEN_DIMENSION.get(len(tensor.shape), 16)
        for axis, size in enumerate(tensor.shape)
    ]
    dtype = serving_dtype(tensor.dtype)
    if dtype == "float32":
        return generator.normal(size=shape).astype(dtype)
    if keras.backend.is_int_dtype(dtype) or dtype == "bool":
        # 0 and 1 are in every vocabulary.
        return generator.integers(0, 2, size=shape).astype(dtype)
    raise OptionError(
        f"Input {name!r} is of type {dtype}, for which no random values can be made. Pass inputs=, a batch of "
        "examples, or verify=False (--no-verify on the command line)."
    )
