"""A candidate's model, trained by turns from the same weights: with this seed or that, at this rate or that."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.comparison.batches import Batches
from kerasbn.comparison.candidates import Candidate
from kerasbn.compilation.memory import leaves
from kerasbn.errors import OptionError, quoted
from kerasbn.planner import applied
from kerasbn.range_test.restoring import held_by, restored

_TIMED = 5


class Contestant:
    """A candidate with its model, built, traced and timed.

    Args:
        candidate: The candidate.
        model: Its model.
        train_on: Trains the model on a batch.
        data: What it is trained on.
        validation: What `evaluate` takes, by name.

    Attributes:
        candidate: The candidate.
        model: Its model.
        rate: The learning rate that the model was compiled with; `None` if it is not a single number.
        step: The seconds of a step of training.
        look: The seconds of an evaluation.
        logs: What an evaluation tells, by name.
    """

    def __init__(
        self,
        candidate: Candidate,
        model: keras.Model,
        train_on: Any,
        data: Batches,
        validation: Mapping[str, Any],
    ) -> None:
        self.candidate, self.model, self.rate = candidate, model, _rate_of(model)
        self._train_on, self._data, self._validation = train_on, data, validation
        with restored(model):  # what the first step makes begins like all else
            batches = list(itertools.islice(data.in_order_of(0), _TIMED))
            self.train(batches[:1])
            self.logs = self.evaluated()
            begin = time.perf_counter()
            self.train(batches)
            between = time.perf_counter()
            self.evaluated()
            self.step, self.look = (between - begin) / len(batches), time.perf_counter() - between
        self._variables = held_by(model)
        self._start = self._state()

    def train(self, batches: Any) -> None:
        """Train the model on batches, as it stands."""
        self.model.reset_metrics()
        try:
            for batch in batches:
                self._train_on(batch)
        except OptionError:
            raise
        except Exception as error:
            raise OptionError(
                f"Model {self.model.name!r} cannot be trained on option data: {quoted(error)}. Pass what model.fit "
                "takes: a tuple of arrays (x, y), or batches (x, y)."
            ) from error

    def evaluated(self) -> Mapping[str, float]:
        """What an evaluation of the model tells, as it stands."""
        try:
            logs = self.model.evaluate(**self._validation, verbose=0, return_dict=True)
        except Exception as error:
            raise OptionError(
                f"Model {self.model.name!r} cannot be evaluated on option validation_data: {quoted(error)}. Pass what "
                "model.evaluate takes: a tuple of arrays (x, y), or batches (x, y)."
            ) from error
        return {name: float(np.mean(value)) for name, value in logs.items()}

    def begin(self, seed: int, rate: float | None) -> Run:
        """A run from the weights that all runs begin with."""
        return Run(self._data.in_order_of(seed), self._seeded(seed), rate)

    def go_on(self, run: Run, steps: int) -> Mapping[str, float]:
        """Train a run up to a number of steps, and evaluate it."""
        for variable, value in zip(self._variables, run.state, strict=True):
            _keras.set_value(variable, value)
        if run.rate is not None:
            leaves(self.model.optimizer)[0].learning_rate = run.rate
        begin = time.perf_counter()
        self.train(itertools.islice(run.batches, steps - run.steps))
        self.step = (time.perf_counter() - begin) / (steps - run.steps)
        run.steps, run.state = steps, self._state()
        return self.evaluated()

    def _state(self) -> list[Any]:
        return [np.array(variable.numpy()) for variable in self._variables]

    def _seeded(self, seed: int) -> list[Any]:
        """The values that all begins with, with random numbers of a seed."""
        states = [*self._start]
        for index, variable in enumerate(self._variables):
            if _keras.is_seed(variable):
                states[index] = np.random.SeedSequence([seed, index]).generate_state(2).astype(states[index].dtype)
        return states


class Run:
    """A training that can be gone on with.

    Args:
        batches: The batches that it gets.
        state: The values of all variables.
        rate: Its learning rate; `None` for the one of the optimizer.

    Attributes:
        steps: How many steps were made.
    """

    def __init__(self, batches: Iterator[Any], state: list[Any], rate: float | None) -> None:
        self.batches, self.state, self.rate, self.steps = batches, state, rate, 0


class Arm:
    """A candidate at one learning rate: a run for each seed, and their scores.

    Args:
        contestant: The candidate with its model.
        rate: The learning rate; `None` for the one of the optimizer.

    Attributes:
        logs: What the evaluations told, by steps and seed.
    """

    def __init__(self, contestant: Contestant, rate: float | None) -> None:
        self.contestant, self.rate = contestant, rate
        self.logs: dict[int, dict[int, Mapping[str, float]]] = {}
        self._runs: dict[int, Run] = {}

    def go_on(self, seed: int, steps: int) -> None:
        """Train the run of a seed up to a number of steps."""
        if seed not in self._runs:
            self._runs[seed] = self.contestant.begin(seed, self.rate)
        run = self._runs[seed]
        random.seed(f"{seed} {run.steps}")
        np.random.seed((seed + run.steps) % 2**32)
        self.logs.setdefault(steps, {})[seed] = self.contestant.go_on(run, steps)

    def end(self) -> None:
        """Let go of what it would need to go on."""
        self._runs.clear()

    def scores(self, steps: int, seeds: Sequence[int], monitor: str) -> list[float]:
        """What is compared, seed by seed; not a number where the loss is none."""
        logs = [self.logs[steps][seed] for seed in seeds]
        return [each[monitor] if math.isfinite(each["loss"]) else math.nan for each in logs]


@contextlib.contextmanager
def contestant(candidate: Candidate, data: Batches, validation: Mapping[str, Any]) -> Iterator[Contestant]:
    """A candidate, ready to be trained inside."""
    model = applied(candidate.plan)
    with _keras.trained_with(model, model.optimizer) as train_on:
        yield Contestant(candidate, model, train_on, data, validation)


def _rate_of(model: keras.Model) -> float | None:
    (leaf, *others) = leaves(model.optimizer)
    rate = _keras.learning_rate_of(leaf)
    return float(np.asarray(rate.numpy())) if isinstance(rate, keras.Variable) and not others else None
