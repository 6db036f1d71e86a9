"""Check that a written model computes what the Keras model computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from kerasbn.errors import VerificationError, quoted
from kerasbn.verification.interface import Arrays, Interface
from kerasbn.verification.samples import Sample, exact_reference, reference

_TINY = float(np.finfo(np.float32).tiny)


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

    Where rounding has more effect than that, the tolerance grows: to 30 times what a relative change of 1e-6 in the
    inputs does, as deep networks amplify it, and to twice what Keras differs from itself in float64, as it sums up
    large images one number after the other.

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
        VerificationError: if the two differ, the written model cannot be run, or the Keras model computes no numbers.
    """
    return max(_compare(model, interface, candidate, what, sample, tolerance) for sample in samples)


def check_likeness(
    candidate: Callable[[Arrays], Arrays], what: str, samples: Iterable[Sample], *, tolerance: float
) -> float:
    """Compare a quantized model with the Keras model it came from.

    What is bounded is the root mean square of the difference, relative to that of the output: the numbers are coarse,
    and a single example at the border of two classes may well go to the other side.

    Args:
        candidate: Computes the written model's outputs.
        what: The name of the written model, for the message.
        samples: The batches to compare on.
        tolerance: What is allowed.

    Returns:
        The greatest difference, relative to the greatest output.

    Raises:
        VerificationError: if the two differ by more, or the written model cannot be run.
    """
    found = [
        (name, each) for sample in samples for name, each in _differences(sample, _run(candidate, what, sample), what)
    ]
    for name, each in found:
        if not each.mean <= tolerance * each.mean_scale:
            raise VerificationError(
                f"Output {name!r} of {what} differs from the Keras model's by {each.mean:.3g} (root mean square), "
                f"where it is {each.mean_scale:.3g} itself; {tolerance:g} of that is allowed. Nothing was kept. Give "
                "data that is more like what the model will be served, or quantize less: 'float16'. Without "
                "verification it is written all the same."
            )
    return max(each.relative for _, each in found)


def _compare(
    model: keras.Model,
    interface: Interface,
    candidate: Callable[[Arrays], Arrays],
    what: str,
    sample: Sample,
    tolerance: float,
) -> float:
    _check_numbers(model, sample)
    differences = dict(_differences(sample, _run(candidate, what, sample), what))
    if all(each.relative <= tolerance for each in differences.values()):
        return max(each.relative for each in differences.values())
    nudged = reference(model, interface, {name: _nudged(array) for name, array in sample.inputs.items()})
    exact = exact_reference(model, interface, sample.inputs)
    for name, each in differences.items():
        expected = sample.expected[name]
        noise = 30 * _Difference.of(name, expected, nudged[name], what).greatest
        if exact is not None:
            noise = max(noise, 2 * _Difference.of(name, exact[name], expected, what).greatest)
        if not each.greatest <= max(tolerance * each.scale, noise):
            raise VerificationError(
                f"Output {name!r} of {what} differs from the Keras model's by {each.greatest:.3g}, where "
                f"{each.scale:.3g} is its greatest value; {tolerance:g} of that is allowed. Nothing was kept. Please "
                "report the model's layers; without verification it is written all the same."
            )
    return max(each.relative for each in differences.values())


def _check_numbers(model: keras.Model, sample: Sample) -> None:
    """Refuse a model that computes no numbers, as whatever is written of it would agree with it.

    Raises:
        VerificationError: with the layer whose weights are the cause, where one's are.
    """
    for name, expected in sample.expected.items():
        if expected.dtype.kind in "OSU" or np.isfinite(wide := np.asarray(expected, np.float64)).all():
            continue
        nothing = not np.isfinite(wide).any()
        for path, array in ((each.path, keras.ops.convert_to_numpy(each)) for each in model.weights):
            numbers = np.asarray(array, np.float64) if array.dtype.kind not in "OSU" else np.zeros(())
            if np.isnan(numbers).any() or (nothing and np.isinf(numbers).any()):
                layer, _, weight = path.rpartition("/")
                raise VerificationError(
                    f"Layer {layer!r} has a {weight} that is not finite, and output {name!r} of the model with it: "
                    "nothing can be verified by that. Load weights from before the training went astray. Without "
                    "verification (verify=False, --no-verify on the command line) it is written all the same."
                )
        if nothing:
            raise VerificationError(
                f"Output {name!r} of the model is not finite on any of the inputs that it is verified with: nothing "
                "can be verified by that. Give kerasbn.export inputs= that the model is made for, or write it without "
                "verification (verify=False, --no-verify on the command line)."
            )


def _run(candidate: Callable[[Arrays], Arrays], what: str, sample: Sample) -> Arrays:
    try:
        got = candidate(sample.inputs)
    except Exception as error:
        shapes = {name: array.shape for name, array in sample.inputs.items()}
        raise VerificationError(f"{what} cannot be run on inputs of the shapes {shapes}: {quoted(error)}.") from error
    if got.keys() != sample.expected.keys():
        raise VerificationError(f"{what} has the outputs {sorted(got)} instead of {sorted(sample.expected)}.")
    return got


def _differences(sample: Sample, got: Arrays, what: str) -> Iterator[tuple[str, _Difference]]:
    for name, expected in sample.expected.items():
        yield name, _Difference.of(name, expected, got[name], what)


@dataclasses.dataclass(frozen=True)
class _Difference:
    """How far two arrays are apart.

    Attributes:
        greatest: The greatest difference; not a number where one alone is not finite.
        scale: The greatest number expected.
        mean: The root mean square of the difference; not a number where `greatest` is none.
        mean_scale: That of the numbers expected.
    """

    greatest: float
    scale: float
    mean: float
    mean_scale: float

    @property
    def relative(self) -> float:
        """The greatest difference, relative to the greatest number."""
        return self.greatest / self.scale

    @classmethod
    def of(cls, name: str, expected: Any, got: Any, what: str) -> _Difference:
        """The difference in an output of that name.

        Raises:
            VerificationError: if they are of other shapes.
        """
        if expected.shape != got.shape:
            raise VerificationError(f"Output {name!r} of {what} has the shape {got.shape} instead of {expected.shape}.")
        if expected.dtype.kind in "OSU":
            apart = 0.0 if np.array_equal(expected.astype("S"), got.astype("S")) else float("nan")
            return cls(apart, 1.0, apart, 1.0)
        expected, got = (np.asarray(array, np.float64) for array in (expected, got))
        finite = np.isfinite(expected)
        if not np.array_equal(finite, np.isfinite(got)):
            return cls(float("nan"), 1.0, float("nan"), 1.0)
        expected, got = expected[finite], got[finite]
        (greatest, mean), (scale, mean_scale) = map(_sizes, (expected - got, expected))
        return cls(greatest, max(scale, _TINY), mean, max(mean_scale, _TINY))


def _sizes(array: Any) -> tuple[float, float]:
    """The greatest magnitude, and the root mean square."""
    return (float(np.max(np.abs(array))), float(np.sqrt(np.mean(np.square(array))))) if array.size else (0.0, 0.0)


def _nudged(array: Any) -> Any:
    return array * array.dtype.type(1 + 1e-6) if array.dtype.kind == "f" else array
