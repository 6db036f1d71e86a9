"""A model to be diagnosed, as the checks see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.catalog.norms import paths_of_norms
from kerasbn.errors import UnsupportedModelError
from kerasbn.facts.facts import Facts
from kerasbn.graph.read import check_model, is_built, read_to_run
from kerasbn.source.source import Source


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A model, and what is known of it without running it.

    Attributes:
        model: The model.
        norms: Its batch normalizations, each with its path.
        facts: What is known of its graph; `None` if there is none.
        notes: What could not be seen, and why.
    """

    model: keras.Model
    norms: Mapping[keras.layers.BatchNormalization, str]
    facts: Facts | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, model: keras.Model, example: Any = None) -> Subject:
        """Take a model in.

        Args:
            model: The model. It is not changed.
            example: A batch of inputs, for a model that is subclassed. Defaults to `None`: what it was built for.

        Raises:
            UnsupportedModelError: if it is no model, or was not built yet.
        """
        check_model(model)
        if not is_built(model):
            raise UnsupportedModelError(
                f"Model {model.name!r} was not built yet, so there is nothing to diagnose. Call it on a batch of "
                "inputs first."
            )
        try:
            graph = read_to_run(model) if _keras.is_graph(model) else Source.of(model, copy=True, example=example).graph
        except UnsupportedModelError as error:
            note = f"How the layers are connected is not known, so nothing is said that depends on it: {error}"
            return cls(model, paths_of_norms(model), None, (note,))
        return cls(model, paths_of_norms(model), Facts(graph), ())

    @cached_property
    def optimizer(self) -> Any:
        """The optimizer of the model; `None` if it was not compiled."""
        return getattr(self.model, "optimizer", None)

    @cached_property
    def replicas(self) -> int:
        """How many replicas share a batch of training."""
        strategy = getattr(self.model, "distribute_strategy", None)
        return int(getattr(strategy, "num_replicas_in_sync", 1))
