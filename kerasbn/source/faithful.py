"""Whether two ways to compute something are one and the same: outputs, state, masks and losses."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.reasons import Reason

Outcome: TypeAlias = Mapping[Reason, list[Any]]
"""All that a call yields, by the reason that a difference would be."""


def outcome(call: Callable[[], Any], variables: Sequence[keras.Variable]) -> Outcome:
    """What comes of a call. Nothing is changed: random numbers are the same each time.

    Args:
        call: Computes outputs.
        variables: The state that it may update.
    """
    with keras.StatelessScope(collect_losses=True) as scope:
        outputs = keras.tree.flatten(call())
        state = [scope.get_current_value(variable) for variable in variables]
        losses = [sum(scope.losses, keras.ops.zeros(()))]
    return {
        Reason.NOT_FAITHFUL: [*outputs, *state],
        Reason.OWN_MASK: [_keras.mask_of(output) for output in outputs],
        Reason.OWN_LOSSES: losses,
    }


def difference(expected: Outcome, got: Outcome) -> Reason | None:
    """What differs, `None` if nothing does."""
    for reason, values in expected.items():
        if len(values) != len(got[reason]) or not all(map(_equal, values, got[reason])):
            return reason
    return None


def is_about_loss(error: BaseException) -> bool:
    """Whether an error arose where a call adds a loss, as it cannot on symbolic inputs."""
    return any(frame.name == "add_loss" for frame in traceback.extract_tb(error.__traceback__))


def _equal(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    one, other = (keras.ops.convert_to_numpy(each) for each in (one, other))
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(one.dtype)):
        return bool(np.array_equal(one, other))
    tolerance = 1e-5 if one.dtype.itemsize >= 4 else 1e-2
    one, other = (np.asarray(each, "float64") for each in (one, other))
    scale = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one)))
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
