"""Who goes on, with scripted scores in the place of training."""

import itertools
import math
import types

import numpy as np
import pytest

import kerasbn
from kerasbn.comparison import halving
from kerasbn.comparison.budgets import RUNGS, Budget
from kerasbn.comparison.halving import Race

SEEDS = (0, 1, 2)
NUMBERS = itertools.count()


class Scripted:
    """A candidate whose score is a function of the steps, with noise by the seed; or of the rate as well."""

    def __init__(self, score, noise=0.01, step=0.001, at=lambda seed, steps: None):
        self.score, self.noise, self.step, self.look, self.at = score, noise, step, 0.0, at
        self.trained, self.number = 0, next(NUMBERS)

    def begin(self, seed, rate):
        return types.SimpleNamespace(seed=seed, rate=rate, steps=0)

    def go_on(self, run, steps):
        self.at(run.seed, steps)
        self.trained += steps - run.steps
        run.steps = steps
        noise = self.noise * np.random.default_rng([run.seed, steps, self.number]).normal()
        score = self.score(steps, run.rate) if run.rate else self.score(steps)
        return {"loss": math.nan if math.isnan(score) else 1 - score, "accuracy": score + noise}


def _raced(*candidates, rates=(None,), budget=800, seeds=SEEDS, sign=1, monitor="accuracy", one_pass=10):
    race = Race(dict.fromkeys(candidates, rates), seeds, Budget.of(budget), monitor, sign, one_pass)
    race.run(lambda what: None)
    return race


def _steps(race):
    return [lane.steps for lane in race.lanes]


def test_what_is_far_behind_goes_and_what_is_level_stays():
    race = _raced(Scripted(lambda n: 0.9), Scripted(lambda n: 0.5), Scripted(lambda n: 0.901))
    assert race.looks == [round(rung * 800) for rung in RUNGS]
    assert _steps(race) == [800, 200, 800]
    assert [lane.is_out for lane in race.lanes] == [False, True, False]
    assert race.lanes[1].behind.steps == 200
    assert not any(race.lanes[place].behind.is_shown for place in (0, 2))


def test_the_race_ends_with_the_decision():
    race = _raced(Scripted(lambda n: 0.9), Scripted(lambda n: 0.5), budget=800)
    assert _steps(race) == [200, 200]


def test_what_is_catching_up_stays_and_may_win():
    slow, fast = Scripted(lambda n: 0.5 + n / 1600, 0.001), Scripted(lambda n: 0.8, 0.001)
    race = _raced(slow, fast, Scripted(lambda n: 0.8, 0.001))
    assert not race.lanes[0].is_out
    assert race.lanes[0].behind.value == 0
    assert race.lanes[1].behind.is_shown


def test_noise_lets_nobody_go():
    for seed in range(30):
        race = _raced(*(Scripted(lambda n: 0.9, noise=0.05) for _ in range(4)), seeds=range(seed, seed + 3))
        assert sum(lane.is_out for lane in race.lanes) <= 1
    assert _steps(race) == [800] * 4


def test_losses_are_the_better_the_smaller():
    race = _raced(Scripted(lambda n: 0.9), Scripted(lambda n: 0.5), monitor="loss", sign=-1)
    assert race.lanes[0].behind.value == 0


def test_the_better_rates_go_on():
    best = 0.1
    candidate = Scripted(lambda n, rate: 0.9 - abs(math.log10(rate / best)) / 10)
    race = _raced(candidate, Scripted(lambda n, rate: 0.9 - abs(math.log10(rate)) / 10), rates=(0.01, 0.1, 1.0, 10.0))
    assert race.lanes[0].arms[0].rate == best
    assert candidate.trained == 3 * (4 * 100 + 2 * 300 + 1 * 400)


def test_what_diverges_at_a_rate_goes_on_at_another():
    candidate = Scripted(lambda n, rate: math.nan if rate > 0.5 else 0.9)
    race = _raced(candidate, Scripted(lambda n, rate: 0.9), rates=(0.1, 1.0))
    assert race.lanes[0].arms[0].rate == 0.1
    assert race.lanes[0].behind is not None


def test_what_diverges_at_all_rates_is_out_and_the_others_are_compared():
    race = _raced(Scripted(lambda n: math.nan), Scripted(lambda n: 0.9), Scripted(lambda n: 0.9))
    assert _steps(race) == [100, 800, 800]
    assert race.lanes[0].behind is None


def test_a_time_is_shared_by_all_and_what_goes_early_leaves_its_own(monkeypatch):
    candidates = [Scripted(lambda n, score=score: score) for score in (0.9, 0.5, 0.9)]
    spent = types.SimpleNamespace(perf_counter=lambda: sum(each.trained for each in candidates) / 1000)
    monkeypatch.setattr(halving, "time", spent)
    race = _raced(*candidates, budget="9 s")
    assert race.looks[:2] == [125, 250]  # 9 s of 1 ms for 9 runs
    assert race.looks[-1] == 250 + (9000 - 9 * 250) // 6
    assert race.seconds == pytest.approx(9, rel=0.01)


def _interrupt(when):
    def at(seed, steps):
        if (seed, steps) == when:
            raise KeyboardInterrupt

    return at


@pytest.mark.parametrize(
    ("when", "looks", "seeds"),
    [((1, 400), [100, 200], 3), ((2, 100), [100], 2), ((1, 100), [100], 1)],
    ids=["later on", "in the first round", "with one seed"],
)
def test_an_interrupt_leaves_what_there_is(when, looks, seeds):
    race = _raced(Scripted(lambda n: 0.9, at=_interrupt(when)), Scripted(lambda n: 0.89, noise=0.05))
    assert race.is_cut
    assert race.looks == looks
    assert len(race.seeds) == seeds
    assert [len(race.scores(lane, looks[-1])) for lane in race.lanes] == [seeds] * 2


def test_an_interrupt_before_there_is_anything_is_one():
    with pytest.raises(KeyboardInterrupt):
        _raced(Scripted(lambda n: 0.9, at=_interrupt((0, 100))), Scripted(lambda n: 0.9))


@pytest.mark.parametrize("budget", [20, "1 s"])
def test_too_small_a_budget_is_refused(budget):
    with pytest.raises(kerasbn.OptionError, match=r"a pass over the data has 1000.*Give a larger budget"):
        _raced(Scripted(lambda n: 0.9), Scripted(lambda n: 0.5), budget=budget, one_pass=1000)


@pytest.mark.parametrize("budget", [0, 3, True, 2.5, "2", "min", "0 min", "-1 s", "2 weeks", None])
def test_what_is_no_budget_is_refused(budget):
    with pytest.raises(kerasbn.OptionError, match=r"Option budget is .*such as '2 min'"):
        Budget.of(budget)


@pytest.mark.parametrize(("budget", "seconds"), [("90 s", 90), ("2 min", 120), ("1.5h", 5400)])
def test_times(budget, seconds):
    assert Budget.of(budget).seconds == seconds
