"""Networks against one another, each at its own best learning rate.

The rate is chosen on the validation part, with seeds that are not those reported: a few seeds per
rate, and the rate with the best mean. The figures reported are those of the test part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from reproduction.data import Dataset
from reproduction.intervals import Estimate, mean
from reproduction.networks import Make
from reproduction.store import Store
from reproduction.training import Run, Score, Trainer, accuracy

FIRST_SWEEP_SEED = 1000


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is spent.

    Attributes:
        seeds: The number of seeds that are reported.
        sweep_seeds: The number of seeds for each learning rate of a sweep.
        quick: Whether only to see that all runs: two rates, a few steps.
        mnist: Digits of 28x28 pixels in the layout of Keras's `mnist.npz`, for what is run at the size of a paper.
        store: What is known from a run that was cut.
    """

    seeds: int = 10
    sweep_seeds: int = 2
    quick: bool = False
    mnist: Path | None = None
    store: Store = dataclasses.field(default_factory=Store)

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
        measure: What is evaluated.
        batch_size: The number of examples in a step.
        shift: By how many pixels images are moved at most, each time that they are trained on.
        title: What it is known by, where runs are kept.
        store: Where they are kept.
    """

    data: Dataset
    steps: int
    target: float | None = None
    every: int = 10
    measure: Score = accuracy
    batch_size: int = 60
    shift: int = 0
    title: str = ""
    store: Store = dataclasses.field(default_factory=Store)

    def trainer(self, make: Make) -> Trainer:
        """What trains such networks."""
        return Trainer(make(0), self.data, self.every, self.batch_size, self.measure, shift=self.shift)

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
    def last(self) -> list[float]:
        """The test score in the end, of each seed."""
        return [float(run.test[-1]) for run in self.runs]

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
        runs = train(candidate, rate, trainer, task, seeds)
        scores[rate] = float(np.mean([task.score(run) for run in runs]))
    click.echo(f"{candidate.name}: " + ", ".join(f"{rate:g} {score:.4g}" for rate, score in scores.items()), err=True)
    return scores


def train(candidate: Candidate, rate: float, trainer: Trainer, task: Task, seeds: Iterable[int]) -> list[Run]:
    """Train a network at one rate from each seed."""
    stop_at = np.inf if task.target is None else task.target

    def run(seed: int) -> list[Any]:
        return trainer.run(candidate.make(seed), rate, seed, task.steps, stop_at).to_list()

    key = (task.title, task.steps, candidate.name, rate)
    return [Run.from_list(task.store.kept((*key, seed), lambda seed=seed: run(seed))) for seed in seeds]


def accuracies(candidate: Candidate, task: Task, budget: Budget) -> list[Estimate]:
    """The mean test accuracy in the end, at each rate."""
    trainer = task.trainer(candidate.make)
    runs = [train(candidate, rate, trainer, task, range(budget.seeds)) for rate in candidate.rates]
    return [mean([float(one.test[-1]) for one in ones]) for ones in runs]


def _result(candidate: Candidate, task: Task, budget: Budget) -> Result:
    trainer = task.trainer(candidate.make)
    scores = sweep(candidate, trainer, task, budget)
    rate = max(scores, key=lambda rate: scores[rate])
    return Result(candidate, scores, rate, train(candidate, rate, trainer, task, range(budget.seeds)))
