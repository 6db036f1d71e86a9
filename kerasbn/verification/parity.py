"""Check that a written model computes what the Keras model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from kerasbn.errors import VerificationError, quoted
from kerasbn.verification.interface import Arrays, Interface
from kerasbn.verification.samples import Sample, reference


def check_parity(
    model: keras.Model,
    interface: Interface,
    candidate: Callable[[Arrays], Arrays],
    what: str,
    samples: Iterable[Sample],
    *,
    tolerance: float = 1e-4,
) -> float:
    """Compare a written model with the Keras model it came from.

    Where a deep network amplifies rounding, the tolerance grows to 30 times what a relative change
    of 1e-6 in its input does.

    Args:
        model: The Keras model.
        interface: How it is served.
        candidate: Computes the written model's outputs.
        what: The name of the written model, for the message.
        samples: The batches to compare on.
        tolerance: Max |difference| allowed, relative to max |output|. Defaults to 1e-4.

    Returns:
        The greatest difference, relative to the greatest output.

    Raises:
        VerificationError: if the two differ, or the written model cannot be run.
    """
    return max(_compare(model, interface, candidate, what, sample, tolerance) for sample in samples)


def _compare(
    model: keras.Model,
    interface: Interface,
    candidate: Callable[[Arrays], Arrays],
    what: str,
    sample: Sample,
    tolerance: float,
) -> float:
    expected = sample.expected
    try:
        got = candidate(sample.inputs)
    except Exception as error:
        shapes = {name: array.shape for name, array in sample.inputs.items()}
        raise VerificationError(f"{what} cannot be run on inputs of the shapes {shapes}: {quoted(error)}.") from error
    if got.keys() != expected.keys():
        raise VerificationError(f"{what} has the outputs {sorted(got)} instead of {sorted(expected)}.")
    nudged = reference(model, interface, {name: _nudged(array) for name, array in sample.inputs.items()})
    return max(_error(name, expected[name], got[name], nudged[name], what, tolerance) for name in expected)


def _error(name: str, expected: Any, got: Any, nudged: Any, what: str, tolerance: float) -> float:
    if expected.dtype.kind in "OSU":
        return _error_of_strings(name, expected, got, what)
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


def _error_of_strings(name: str, expected: Any, got: Any, what: str) -> float:
    if expected.shape != got.shape or not np.array_equal(expected.astype("S"), got.astype("S")):
        raise VerificationError(
            f"Output {name!r} of {what} has other strings than the Keras model's. Nothing was kept."
        )
    return 0.0


def _nudged(array: Any) -> Any:
    return array * array.dtype.type(1 + 1e-6) if array.dtype.kind == "f" else array
