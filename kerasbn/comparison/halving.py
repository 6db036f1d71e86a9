"""Who goes on: of the rates of a candidate the better half, of candidates those that are not shown to be behind.

Rates of one candidate are chosen by the mean over the seeds, noise or not: some rate there has to be. Two stay until
half of the training is done, as a rate that is too high in the end may be the better one at first. A candidate goes
only where the seeds show that it is behind, and it would not catch up if it went on in a straight line.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kerasbn.comparison.budgets import RUNGS, Budget, Pace, steps_in
from kerasbn.comparison.significance import EARLY, Difference, differences
from kerasbn.comparison.training import Arm, Contestant
from kerasbn.errors import OptionError
from kerasbn.progress import shown


@dataclasses.dataclass(eq=False)
class Lane:
    """A candidate in the race.

    Attributes:
        contestant: The candidate with its model.
        arms: Its rates that are left, the best one first once they were looked at.
        steps: After how many steps it was looked at last.
        behind: How far it was behind the leader then; `None` until it is known, and if it diverged.
        is_out: Whether it went on the way.
    """

    contestant: Contestant
    arms: list[Arm]
    steps: int = 0
    behind: Difference | None = None
    is_out: bool = False


class Race:
    """Candidates that are trained side by side.

    Args:
        rates: The learning rates of each candidate.
        seeds: The seeds of the runs.
        budget: How long they are trained.
        monitor: What is compared.
        sign: 1 if the greater is the better, -1 if the smaller is.
        one_pass: How many steps a pass over the data has, if that is known.

    Attributes:
        lanes: The candidates.
        seeds: The seeds that count.
        looks: The steps after which they were looked at.
        seconds: How long they were trained and evaluated.
        is_cut: Whether that was interrupted.
    """

    def __init__(
        self,
        rates: Mapping[Contestant, Sequence[float | None]],
        seeds: Sequence[int],
        budget: Budget,
        monitor: str,
        sign: int,
        one_pass: int | None,
    ) -> None:
        self.lanes = [Lane(each, [Arm(each, rate) for rate in found]) for each, found in rates.items()]
        self.seeds, self.looks, self.seconds, self.is_cut = tuple(seeds), list[int](), 0.0, False
        self._budget, self._monitor, self._sign, self._one_pass = budget, monitor, sign, one_pass

    def run(self, step: Callable[[str], None]) -> None:
        """Run it to its end, or until it is interrupted once there is something to say.

        Args:
            step: What is told of each step of the way.
        """
        for rung in range(len(RUNGS)):
            steps = self._steps(rung)
            step(f"Training to {steps} steps")
            begin = time.perf_counter()
            try:
                arms = [arm for lane in self._going for arm in lane.arms]
                for seed, arm in shown([(seed, arm) for seed in self.seeds for arm in arms], "Runs"):
                    arm.go_on(seed, steps)
            except KeyboardInterrupt:
                self.is_cut = True
                done = [seed for seed in self.seeds if all(seed in arm.logs.get(steps, ()) for arm in arms)]
                if not self.looks and not done:
                    raise
                if not self.looks:
                    self.seeds = tuple(done)
                    self._look(steps, rung, is_last=True)
                return
            finally:
                self.seconds += time.perf_counter() - begin
            self._look(steps, rung, is_last=rung == len(RUNGS) - 1)
            if len(self._going) < 2:
                return

    @property
    def _going(self) -> list[Lane]:
        return [lane for lane in self.lanes if not lane.is_out]

    def scores(self, lane: Lane, steps: int) -> list[float]:
        """The scores of a candidate at its best rate, seed by seed, the greater the better."""
        return self._scores(lane.arms[0], steps)

    def _scores(self, arm: Arm, steps: int) -> list[float]:
        return [self._sign * score for score in arm.scores(steps, self.seeds, self._monitor)]

    def _steps(self, rung: int) -> int:
        """Up to how many steps to train next."""
        done = self.looks[-1] if self.looks else 0
        if self._budget.steps is not None:
            whole = self._budget.steps
            self._check_whole(whole)
            return max(round(RUNGS[rung] * whole), done + 1)
        assert self._budget.seconds is not None
        paces = [Pace(lane.contestant.step, lane.contestant.look, _kept(len(lane.arms), rung)) for lane in self._going]
        whole = steps_in(self._budget.seconds - self.seconds, paces, len(self.seeds), rung)
        if not rung:
            self._check_whole(whole)
        width = RUNGS[rung] - (RUNGS[rung - 1] if rung else 0.0)
        return done + max(round(width * whole), 1)

    def _check_whole(self, steps: int) -> None:
        """Refuse a budget in which a candidate does not see the data once."""
        if steps >= (self._one_pass or len(RUNGS)):
            return
        runs = sum(len(lane.arms) for lane in self.lanes) * len(self.seeds)
        what = "" if self._budget.steps is not None else f" for each of {runs} runs"
        raise OptionError(
            f"The budget makes {steps} steps{what}, and a pass over the data has {self._one_pass or 'some'}. Give a "
            "larger budget, a part of the data, fewer candidates, or fewer seeds."
        )

    def _look(self, steps: int, rung: int, *, is_last: bool) -> None:
        """Decide who goes on, and how far the others are behind."""
        before = self.looks[-1] if self.looks else None
        self.looks.append(steps)
        for lane in self._going:
            self._choose(lane, steps, 1 if is_last else _kept(len(lane.arms), rung)[1])
        if not self._going:
            return
        going = self._going
        table = np.array([self.scores(lane, steps) for lane in going])
        leader = int(table.mean(1).argmax())
        early = differences(table, steps, EARLY) if len(going) > 1 else []
        for place, found in enumerate(differences(table, steps) if len(going) > 1 else [Difference(0.0, 0.0, steps)]):
            going[place].behind = found
            if not is_last and before is not None and early and early[place].is_shown:
                ahead, own = (np.mean(self.scores(going[each], before)) for each in (leader, place))
                gained = (ahead - own - found.value) * (1 - RUNGS[rung]) / (RUNGS[rung] - RUNGS[rung - 1])
                going[place].is_out = bool(found.value > gained)
        for lane in self.lanes:
            for arm in lane.arms if lane.is_out or is_last else ():
                arm.end()

    def _choose(self, lane: Lane, steps: int, kept: int) -> None:
        """Let go of the rates of a candidate that diverge or are the worse ones."""
        means = {arm: float(np.mean(self._scores(arm, steps))) for arm in lane.arms}
        lane.steps = steps
        finite = sorted((arm for arm in lane.arms if np.isfinite(means[arm])), key=lambda arm: -means[arm])
        if not finite:
            lane.is_out, lane.behind = True, None
            return
        for arm in {*lane.arms} - {*finite[:kept]}:
            arm.end()
        lane.arms = finite[:kept]


def _kept(arms: int, rung: int) -> tuple[int, ...]:
    """How many rates a candidate is trained at up to each rung that is ahead: half of them, two, and one in the end."""
    counts = [arms]
    for number in range(rung + 1, len(RUNGS)):
        counts.append(1 if number == len(RUNGS) - 1 else min(counts[-1], max(-(-counts[-1] // 2), 2)))
    return tuple(counts)
