"""What to make of the curve of a range test.

Below the lowest point of the curve the loss still falls, above it it rises. A single point varies from seed to seed, so
it is the middle of all rates at which the trend is about as low; and half of that, since a rate that stands still must
be lower than one that is passed by (`"minimum"`). The others are those of fastai and Bengio (2012, section
3.1.1): the steepest fall, the middle of the longest one, and some way below the rate that diverges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DEFAULT = "minimum"
"""The one that varies least over seeds: see docs/reproduce/rate_finder.md."""

NAMES = ("steep", "valley", "minimum", "slide")
"""What there is; the last one where the loss diverged."""

_LOW = 0.2
_MARGIN = 4.0
_SAFE = 0.5
_WIDTH = 0.5


def trend_of(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, ...]:
    """The losses smoothed over the rates on both sides, so that the trend does not lag.

    They count less by e^(-1/2) where a rate is e^(1/2) times as high or as low.
    """
    values, at = np.asarray(losses), np.log(rates)
    weights = np.exp(-0.5 * ((at[:, None] - at[None, :]) / _WIDTH) ** 2)
    return tuple(float(value) for value in weights @ values / weights.sum(1))


def suggestions_of(rates: Sequence[float], trend: Sequence[float], *, diverged: bool) -> Mapping[str, float]:
    """Learning rates to train with, by name.

    Args:
        rates: The rates that were tried, from low to high.
        trend: The trend of the losses.
        diverged: Whether the loss diverged at the last one.
    """
    logs, values = np.log(rates), np.asarray(trend)
    lowest = int(np.argmin(values))
    found = {
        "steep": rates[int(np.argmin(np.gradient(values, logs)[: lowest + 1]))],
        "valley": _middle(rates, *_longest_fall(values)),
        "minimum": _SAFE * _middle(rates, *_around(lowest, values)),
    }
    return {**found, "slide": rates[-1] / _MARGIN} if diverged else found


def _around(lowest: int, values: np.ndarray[Any, Any]) -> tuple[int, int]:
    """From where to where the trend has lost no more than a part of what it gained."""
    is_high = values > values[lowest] + _LOW * (values[0] - values[lowest])
    before, after = np.flatnonzero(is_high[:lowest]), np.flatnonzero(is_high[lowest:])
    return int(before[-1]) + 1 if before.size else 0, lowest + int(after[0]) - 1 if after.size else len(values) - 1


def _longest_fall(values: np.ndarray[Any, Any]) -> tuple[int, int]:
    """From where to where the trend falls for longest."""
    begin, longest = 0, (0, 0)
    for at in range(1, len(values)):
        if values[at] >= values[at - 1]:
            begin = at
        elif at - begin > longest[1] - longest[0]:
            longest = begin, at
    return longest


def _middle(rates: Sequence[float], first: int, last: int) -> float:
    """The rate in the middle of two, by their logarithms."""
    return math.sqrt(rates[first] * rates[last])
