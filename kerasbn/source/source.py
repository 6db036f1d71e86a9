"""The one way from a model to a graph of it, and from an edited graph to a model.

What comes along when a model is built again, and where that is seen to:

    class, name, structure of inputs and outputs, frozen, dtype policy     kerasbn.graph.build
    layers: configuration                                                  kerasbn.graph.clone
    layers: names, policies, weights, what is frozen, what is set on       kerasbn.graph.carry
            single variables, tables
    loss, metrics, compile settings, optimizer and its progress            kerasbn.compilation.compiled
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from kerasbn.compilation.compiled import carry_compiled_state
from kerasbn.compilation.optimizer import SAME, Tempo
from kerasbn.graph.build import Built, build
from kerasbn.graph.model import Graph
from kerasbn.graph.read import read
from kerasbn.source.trace import is_traceable, trace


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model to be rewritten. It is never changed.

    Attributes:
        model: The model.
        graph: It as a graph: read, or if it is subclassed, traced.
        copy: Whether models built from it own copies of all weights.
    """

    model: keras.Model
    graph: Graph
    copy: bool
    _origins: Mapping[int, keras.Variable] | None

    @classmethod
    def of(cls, model: keras.Model, *, copy: bool) -> Source:
        """Take a model in.

        Raises:
            UnsupportedModelError: if there is no graph that computes what the model does.
        """
        if not is_traceable(model):
            return cls(model, read(model), copy, None)
        traced = trace(model, copy=copy)
        return cls(model, read(traced.model), copy, traced.sources)

    def build(self, graph: Graph, tempo: Tempo = SAME) -> Built:
        """Build the model that an edit of the graph describes, with all that comes along.

        Args:
            graph: The graph, edited.
            tempo: How the optimizer is to differ. Defaults to nothing.

        Raises:
            UnsupportedModelError: if something cannot be carried over faithfully.
        """
        built = build(graph, copy=self.copy)
        carry_compiled_state(self.model, built.model, self._successors(built), tempo)
        return built

    def _successors(self, built: Built) -> Mapping[int, keras.Variable]:
        """The new variable for each of the model's that lives on, by the old one's `id`."""
        if self._origins is None:
            return built.successors
        return {
            id(origin): built.successors[traced]
            for traced, origin in self._origins.items()
            if traced in built.successors
        }
