"""What is made of the curve of a range test."""

import numpy as np
import pytest

from kerasbn.range_test.suggestions import suggestions_of, trend_of

RATES = tuple(np.geomspace(1e-5, 10, 121))
LOGS = np.log10(RATES)


def _course(*points):
    """A curve through points (logarithm of the rate, loss)."""
    return np.interp(LOGS, *np.transpose(points))


COURSES = {
    "falls and rises": (
        _course((-5, 2.3), (-3, 2.3), (-1, 0.3), (0, 0.3), (0.5, 2.3)),
        {"minimum": -0.9, "steep": -2.0, "slide": 1 - np.log10(4)},
    ),
    "falls in two parts": (
        _course((-5, 2.3), (-4, 2.2), (-3.5, 2.2), (-2, 1.0), (-1, 1.2), (0.5, 2.3)),
        {"minimum": -2.2, "valley": -3.5},
    ),
    "only falls": (_course((-5, 2.3), (1, 0.0)), {"minimum": 0.1, "valley": -2.0}),
    "stays": (np.full(121, 2.3), {}),
}


@pytest.mark.parametrize("diverged", [True, False])
@pytest.mark.parametrize("course", COURSES)
def test_suggestions_of_a_course(course, diverged):
    losses, expected = COURSES[course]
    found = suggestions_of(RATES, trend_of(RATES, losses), diverged=diverged)
    assert set(found) == {"steep", "valley", "minimum"} | ({"slide"} if diverged else set())
    assert all(RATES[0] * 0.499 <= rate <= RATES[-1] * 1.001 for rate in found.values())
    for name, logarithm in expected.items():
        if name in found:
            assert np.log10(found[name]) == pytest.approx(logarithm, abs=0.35), name


def test_the_trend_does_not_depend_on_how_many_steps_there_are():
    few, many = np.geomspace(1e-5, 10, 61), np.geomspace(1e-5, 10, 601)
    trends = [
        trend_of(rates, np.interp(np.log10(rates), *np.transpose([(-5, 2), (-1, 0), (1, 3)]))) for rates in (few, many)
    ]
    np.testing.assert_allclose(trends[1][::10], trends[0], atol=0.05)


def test_noise_moves_the_middle_of_the_low_rates_less_than_the_lowest():
    clean, generator = COURSES["falls and rises"][0], np.random.default_rng(0)
    noisy = [clean + 0.3 * generator.normal(size=121) for _ in range(20)]
    middles = [suggestions_of(RATES, trend_of(RATES, losses), diverged=False)["minimum"] for losses in noisy]
    lowest = [RATES[int(np.argmin(losses))] for losses in noisy]
    assert np.std(np.log(middles)) < np.std(np.log(lowest)) / 2
