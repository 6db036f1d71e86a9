"""Whether a few seeds show that candidates differ.

Scores stand in a table, a row for each candidate and a column for each seed: the seed has the same effect on all, so
differences are taken within it (a randomized complete block design). Of a pair, the mean of its differences has the
interval of Student's t, with two things that few seeds need:

- The variance is that of the pair's own differences or, if that is greater, twice the mean square of what candidate and
  seed leave unexplained in the whole table: three differences may well be equal by chance. Its degrees of freedom are
  those of the latter, (candidates - 1) (seeds - 1). It is also not below the square of the smallest difference between
  any two scores: 359 and 360 digits out of 360 are no two results.
- The level holds for all comparisons with the leader together (Bonferroni).

On the way candidates go at a level of 99 %, and only if they are not catching up; in the end the level is 95 %. What
happens early is then no reason to correct the end (Haybittle and Peto).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from kerasbn.arrays import Array

EARLY, FINAL = 0.99, 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far one candidate is behind the leader.

    Attributes:
        value: The mean over seeds.
        reach: The interval is from so much below it to so much above; infinite for a single seed.
        steps: After how many steps.
    """

    value: float
    reach: float
    steps: int

    @property
    def is_shown(self) -> bool:
        """Whether the seeds show that there is one."""
        return self.value > self.reach


def differences(scores: Array, steps: int, level: float = FINAL) -> list[Difference]:
    """How far each candidate is behind the one with the best mean.

    Args:
        scores: A row for each candidate, a column for each seed, the greater the better.
        steps: After how many steps.
        level: The confidence of all intervals together.
    """
    candidates, seeds = scores.shape
    behind = scores[scores.mean(1).argmax()] - scores
    values = behind.mean(1)
    if seeds == 1:
        return [Difference(float(value), math.inf, steps) for value in values]
    freedom = (candidates - 1) * (seeds - 1)
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    gaps = np.diff(np.unique(scores))
    floor = max(2 * np.sum(rest**2) / freedom, gaps.min(initial=math.inf) ** 2 if gaps.size else 0.0)
    reaches = _quantile(freedom, (1 - level) / (candidates - 1)) * np.sqrt(
        np.maximum(behind.var(1, ddof=1), floor) / seeds
    )
    return [Difference(float(value), float(reach), steps) for value, reach in zip(values, reaches, strict=True)]


def _quantile(freedom: int, outside: float) -> float:
    """What Student's t exceeds in size with a probability.

    With t = sqrt(freedom) tan(a), the density of the angle a is that of cos(a) ** (freedom - 1).
    """
    angles = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(angles) ** (freedom - 1)
    inside = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    angle = np.interp(1 - outside, inside / inside[-1], angles)
    return float(math.sqrt(freedom) * math.tan(angle))
