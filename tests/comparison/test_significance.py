"""What few seeds show, and what they do not."""

import math

import numpy as np
import pytest
from scipy import stats

from kerasbn.comparison.significance import EARLY, FINAL, _quantile, differences


@pytest.mark.parametrize("freedom", [1, 2, 3, 6, 30])
@pytest.mark.parametrize("outside", [0.05, 0.05 / 3, 0.01 / 5])
def test_the_quantiles_are_those_of_student(freedom, outside):
    assert _quantile(freedom, outside) == pytest.approx(stats.t.ppf(1 - outside / 2, freedom), rel=1e-3)


def test_the_interval_of_two_candidates_is_that_of_the_paired_test():
    one, other = np.array([[0.31, 0.45, 0.52, 0.4], [0.2, 0.41, 0.39, 0.37]])
    leads, behind = differences(np.stack([one, other]), 10)
    low, high = stats.ttest_rel(one, other).confidence_interval(FINAL)
    assert (leads.value, behind.value) == pytest.approx((0, np.mean(one - other)))
    assert behind.reach == pytest.approx((high - low) / 2, rel=1e-3)


@pytest.mark.parametrize("spreads", [(1, 1, 1, 1), (1, 1), (1, 1, 1, 5)], ids=str)
@pytest.mark.parametrize("grain", [1e-6, 1.0], ids=["fine", "coarse"])
def test_equal_candidates_seldom_seem_different(spreads, grain):
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(500):
        scores = generator.normal(size=(len(spreads), 3)) * np.array(spreads)[:, None] + generator.normal(size=3)
        alarms += any(each.is_shown for each in differences(np.round(scores / grain) * grain, 10))
    assert alarms <= (0.12 if len(set(spreads)) > 1 else 0.08) * 500


def test_what_is_far_behind_is_seen_also_where_seeds_differ_more():
    generator = np.random.default_rng(0)
    seen = 0
    for _ in range(200):
        scores = generator.normal(size=(4, 3)) + 10 * generator.normal(size=3) - [[0], [8], [8], [8]]
        seen += all(each.is_shown for each in differences(scores, 10)[1:])
    assert seen > 180


@pytest.mark.parametrize(
    "scores",
    [[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], [[1.0, 1.0, 1.0], [359 / 360] * 3], [[0.9], [0.1]]],
    ids=["no difference", "one example", "one seed"],
)
def test_nothing_is_shown_by(scores):
    assert not any(each.is_shown for each in differences(np.array(scores), 10))


def test_the_early_level_asks_for_more():
    scores = np.array([[0.9, 0.91, 0.92], [0.8, 0.79, 0.84]])
    final, early = (differences(scores, 10, level)[1].reach for level in (FINAL, EARLY))
    assert final < early < math.inf
