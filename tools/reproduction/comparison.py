"""Networks against one another, each at its own best learning rate.

The rate is chosen on the validation part, with seeds that are not those reported: a few seeds per
rate, and the rate with the best mean. The figures reported are those of the test part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import click
import numpy as np

from reproduction.data import Dataset
from reproduction.intervals import Estimate, mean
from reproduction.networks import Make
from reproduction.training import Run, Trainer

FIRST_SWEEP_SEED = 1000


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is spent.

    Attributes:
        seeds: The number of seeds that are reported.
        sweep_seeds: The number of seeds for each learning rate of a sweep.
        quick: Whether only to see that all runs: two rates, a few steps.
    """

    seeds: int = 10
    sweep_seeds: int = 2
    quick: bool = False

    def steps(self, steps: int) -> int:
        """The steps that a run may take, where the claim asks for so many."""
        return min(steps, 20) if self.quick else steps

    def rates(self, rates: Sequence[float]) -> Sequence[float]:
        """The rates to try, where the claim asks for these."""
        return rates[:2] if self.quick else rates


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network to be trained.

    Attributes:
        name: The name in the tables.
        make: What makes the compiled network, with the weights of a seed.
        rates: The learning rates to choose from.
    """

    name: str
    make: Make
    rates: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Task:
    """What the networks are trained to do.

    Attributes:
        data: The data.
        steps: The most steps that a run takes.
        target: The accuracy to be reached. Defaults to `None`: what counts is the accuracy at the end.
        every: The number of steps between two evaluations.
    """

    data: Dataset
    steps: int
    target: float | None = None
    every: int = 10

    def trainer(self, make: Make) -> Trainer:
        """What trains such networks."""
        return Trainer(make(0), self.data, self.every)

    def score(self, run: Run) -> float:
        """What a rate is chosen by, the greater the better."""
        if self.target is None:
            return float(run.validation[-1])
        return -run.steps_to(self.target, self.steps, "validation")


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out for a candidate.

    Attributes:
        candidate: The candidate.
        sweep: The mean score of each rate.
        rate: The best rate.
        runs: The runs at the best rate, one a seed.
    """

    candidate: Candidate
    sweep: Mapping[float, float]
    rate: float
    runs: Sequence[Run]

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the first or last of those tried, so that a better one may lie beyond."""
        return self.rate in (min(self.sweep), max(self.sweep))


def compare(candidates: Sequence[Candidate], task: Task, budget: Budget) -> list[Result]:
    """Choose each candidate's rate, then train it from each seed."""
    return [_result(candidate, task, budget) for candidate in candidates]


def sweep(candidate: Candidate, trainer: Trainer, task: Task, budget: Budget) -> Mapping[float, float]:
    """The mean score of each rate."""
    seeds = range(FIRST_SWEEP_SEED, FIRST_SWEEP_SEED + budget.sweep_seeds)
    scores = {}
    for rate in budget.rates(candidate.rates):
        runs = train(candidate.make, rate, trainer, task, seeds)
        scores[rate] = float(np.mean([task.score(run) for run in runs]))
    click.echo(f"{candidate.name}: " + ", ".join(f"{rate:g} {score:.4g}" for rate, score in scores.items()), err=True)
    return scores


def train(make: Make, rate: float, trainer: Trainer, task: Task, seeds: Iterable[int]) -> list[Run]:
    """Train a network at one rate from each seed."""
    stop_at = np.inf if task.target is None else task.target
    return [trainer.run(make(seed), rate, seed, task.steps, stop_at) for seed in seeds]


def accuracies(make: Make, rates: Iterable[float], task: Task, budget: Budget) -> list[Estimate]:
    """The mean test accuracy in the end, at each rate."""
    trainer = task.trainer(make)
    runs = [train(make, rate, trainer, task, range(budget.seeds)) for rate in rates]
    return [mean([float(one.test[-1]) for one in ones]) for ones in runs]


def _result(candidate: Candidate, task: Task, budget: Budget) -> Result:
    trainer = task.trainer(candidate.make)
    scores = sweep(candidate, trainer, task, budget)
    rate = max(scores, key=lambda rate: scores[rate])
    return Result(candidate, scores, rate, train(candidate.make, rate, trainer, task, range(budget.seeds)))
