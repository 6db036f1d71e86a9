"""What a comparison says of what came out."""

import math

import pytest

from kerasbn.comparison.result import Comparison, Row
from kerasbn.comparison.significance import Difference


def _comparison(outcomes, monitor="accuracy", seeds=3):
    rows = []
    for name, (outcome, value, steps) in outcomes.items():
        behind = None if outcome == "diverged" else Difference(value, 0.004 if seeds > 1 else math.inf, steps)
        scores = (math.nan if outcome == "diverged" else 0.9 - value,) * seeds
        rows.append(Row(name, (), {"position": name}, 0.1, steps, scores, {steps: scores}, behind, outcome))
    return Comparison("net", monitor, tuple(range(seeds)), tuple(rows), (), 1.0, False)


LEADS, LEVEL, DIVERGED = ("leads", 0.0, 80), ("level", 0.002, 80), ("diverged", 0.0, 10)
VERDICTS = {
    "'after' wins by 1.2 ± 0.4 points over 'before' (3 seeds)": (
        {"none": ("behind", 0.01, 20), "before": ("behind", 0.012, 80), "after": LEADS},
        "after",
    ),
    "no difference that 3 seeds show between 'none' and 'after'": ({"none": LEVEL, "after": LEADS}, "none"),
    "no difference that 3 seeds show between 'before' and 'after'; 'none' is behind by 5 ± 0.4 points": (
        {"none": ("behind", 0.05, 20), "before": LEADS, "after": LEVEL},
        "before",
    ),
    "'after' wins; 'none' and 'before' diverge": ({"none": DIVERGED, "before": DIVERGED, "after": LEADS}, "after"),
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_verdict_and_the_best(verdict):
    outcomes, best = VERDICTS[verdict]
    comparison = _comparison(outcomes)
    assert comparison.verdict == verdict
    assert comparison.best == {"position": best}


def test_what_is_no_share_is_not_told_in_points():
    comparison = _comparison({"none": ("behind", 0.5, 80), "after": LEADS}, monitor="loss")
    assert comparison.verdict == "'after' wins by 0.5 ± 0.004 over 'none' (3 seeds)"


def test_one_seed_after_an_interrupt_shows_nothing():
    comparison = _comparison({"none": LEVEL, "after": LEADS}, seeds=1)
    assert comparison.verdict == "no difference that 1 seed shows between 'none' and 'after'"
