"""Figures with their intervals, all at 95 %.

Medians and ratios of medians: percentile bootstrap over the seeds. Means: Student's t.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its interval, which a single seed does not give."""

    value: float
    low: float
    high: float

    def text(self, show: Callable[[float], str]) -> str:
        """The figure for a table, `"120 [100, 140]"`."""
        interval = f" [{show(self.low)}, {show(self.high)}]" if np.isfinite(self.low) else ""
        return show(self.value) + interval


def median(values: Sequence[float]) -> Estimate:
    """The median."""
    return _bootstrapped(np.median, values)


def ratio_of_medians(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """The median of one sample over that of another, each resampled by itself."""
    return _bootstrapped(lambda one, other, axis=0: np.median(one, axis) / np.median(other, axis), above, below)


def mean(values: Sequence[float]) -> Estimate:
    """The mean."""
    value = float(np.mean(values))
    if len(values) < 2:
        return Estimate(value, np.nan, np.nan)
    reach = float(stats.sem(values)) * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return Estimate(value, value - reach, value + reach)


def differ(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two means are to be told apart, by a Welch test."""
    if min(len(one), len(other)) < 2 or np.ptp(one) == np.ptp(other) == 0:
        return False
    return bool(stats.ttest_ind(one, other, equal_var=False).pvalue < 1 - CONFIDENCE)


def verdict(one: Sequence[float], other: Sequence[float]) -> str:
    """What the other scores are to the one, the greater the better."""
    if not differ(one, other):
        return "the same"
    return "better" if sum(other) > sum(one) else "worse"


def _bootstrapped(statistic: Callable[..., float], *samples: Sequence[float]) -> Estimate:
    value = float(statistic(*map(np.asarray, samples)))
    if min(map(len, samples)) < 2:
        return Estimate(value, np.nan, np.nan)
    interval = stats.bootstrap(
        samples, statistic, confidence_level=CONFIDENCE, method="percentile", rng=0
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))
