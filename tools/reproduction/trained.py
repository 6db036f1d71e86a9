"""The runs of one network, each made when it is asked for, and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property

import keras

from reproduction.networks import Make
from reproduction.store import Store
from reproduction.training import Run, Trainer


@dataclasses.dataclass
class Trained:
    """The runs of one network.

    Attributes:
        title: What it is known by, where runs are kept.
        make: What makes the compiled network, with the weights of a seed.
        trainer_of: What trains such a network.
        steps: How long.
        store: Where runs are kept.
    """

    title: str
    make: Make
    trainer_of: Callable[[keras.Model], Trainer]
    steps: int
    store: Store

    def run(self, seed: int, rate: float | None = None) -> Run:
        """The run from a seed, at a learning rate; `None` for what the network is compiled with."""
        key = (self.title, self.steps, rate, seed)
        return Run.from_list(
            self.store.kept(key, lambda: self._trainer.run(self.make(seed), rate, seed, self.steps).to_list())
        )

    @cached_property
    def _trainer(self) -> Trainer:
        return self.trainer_of(self.make(0))
