"""The one way from a model to a graph of it, and from an edited graph to a model.

What comes along when a model is built again, and where that is seen to:

    a class that trains in its own way: its attributes, metrics, optimizers  kerasbn.source.assembly
    custom layers: what they do, as graphs                                 kerasbn.source.opening
    class, name, structure of inputs and outputs, frozen, dtype policy     kerasbn.graph.build
    layers: configuration                                                  kerasbn.graph.clone
    layers: names, policies, weights, what is frozen, what is set on       kerasbn.graph.carry
            single variables, tables
    loss, metrics, compile settings, optimizer and its progress            kerasbn.compilation.compiled
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.compilation.compiled import carry_compiled_state
from kerasbn.compilation.optimizer import SAME, Tempo
from kerasbn.compilation.weights import Placed, is_normalization
from kerasbn.graph.build import Built, build
from kerasbn.graph.model import Graph, LayerSpec
from kerasbn.graph.read import read
from kerasbn.reasons import Refusal
from kerasbn.source.assembly import assembled, carried_over, carry_own_attributes, graph_of_parts, is_assembly, parts_of
from kerasbn.source.opening import opened
from kerasbn.source.trace import Traced, is_traceable, trace


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model to be rewritten. It is never changed.

    Attributes:
        model: The model.
        graph: It as a graph: read, or if it is subclassed, traced; with custom layers opened.
        copy: Whether models built from it own copies of all weights.
        kept: The custom layers that were to be opened and are kept whole, with the reason.
        opened: The paths of the custom layers that were opened.
    """

    model: keras.Model
    graph: Graph
    copy: bool
    kept: Mapping[keras.layers.Layer, Refusal]
    opened: tuple[str, ...]
    _traced: Traced | None

    @classmethod
    def of(
        cls,
        model: keras.Model,
        *,
        copy: bool,
        holds: Callable[[keras.layers.Layer], bool] = lambda layer: False,
        example: Any = None,
    ) -> Source:
        """Take a model in.

        Args:
            model: The model.
            copy: Whether models built from it are to own copies of all weights.
            holds: Tells the layers for the sake of which custom layers around them are opened.
                Defaults to none.
            example: A batch of inputs, for a model that is subclassed. Defaults to `None`: what it was
                built for.

        Raises:
            UnsupportedModelError: if there is no graph that computes what the model does.
        """
        with _keras.forgotten_calls(_keras.sublayers(model) if isinstance(model, keras.Model) else ()):
            subclassed = is_traceable(model) and not is_assembly(model)
            traced = trace(model, copy=copy, example=example) if subclassed else None
            graph = graph_of_parts(model) if is_assembly(model) else read(model if traced is None else traced.model)
            found = opened(graph, holds, copy=copy)
        return cls(model, found.graph, copy, found.kept, found.paths, traced)

    @property
    def is_assembly(self) -> bool:
        """Whether the model trains in its own way, and its parts are what is rewritten."""
        return is_assembly(self.model)

    @property
    def parts(self) -> list[str]:
        """The paths of the parts of a model that trains in its own way."""
        return parts_of(self.model, self.graph) if self.is_assembly else []

    @property
    def notes(self) -> Iterator[str]:
        """What to know about how the model was taken in."""
        if self.opened:
            yield (
                f"Opened, to stand in the result as models inside: {', '.join(self.opened)}. Their classes are no "
                "longer needed; the paths of their weights in .weights.h5 files change."
            )
        if self._traced is not None and self._traced.inert:
            yield (
                f"The call of {type(self.model).__name__} takes no training, so that Keras never lets "
                f"{', '.join(self._traced.inert)} train in it; in the result they do."
            )
        if left := [f"{path} ({kind})" for path, kind in self._classes_left]:
            yield (
                f"Plain Sequential and functional models in the result, as their classes are made from something else "
                f"than layers or tensors: {', '.join(left)}. What else they hold and can do is not carried over."
            )
        if self.is_assembly:
            others = carried_over(self.model, self.graph)
            yield (
                f"The result is a {type(self.model).__name__} around other parts, made without its __init__; save the "
                "parts, or give the class a get_config that tells of them."
                + (f" Carried over as they are: {', '.join(others)}." if others else "")
            )

    @property
    def _classes_left(self) -> Iterator[tuple[str, str]]:
        """The Sequential and functional models that cannot keep their class, each with its path and class."""
        if not self.copy:
            return
        inside = [(sites[0].path, each) for each, sites in self.graph.calls.items() if isinstance(each, Graph)]
        for path, graph in inside if self.is_assembly else [(self.graph.name, self.graph), *inside]:
            kind = type(graph.model)
            if issubclass(kind, keras.Sequential | _keras.Functional) and not _keras.is_constructed_from_graph(kind):
                yield path, kind.__name__

    def build(self, graph: Graph, tempo: Tempo = SAME) -> Built:
        """Build the model that an edit of the graph describes, with all that comes along.

        Args:
            graph: The graph, edited.
            tempo: How the optimizer is to differ. Defaults to nothing.

        Raises:
            UnsupportedModelError: if something cannot be carried over faithfully.
        """
        built = build(graph, copy=self.copy)
        if is_assembly(self.model):
            built = assembled(self.model, built, tempo, copy=self.copy)
        elif type(built.model) is type(self.model) and not _keras.is_keras_own(type(self.model)):
            carry_own_attributes(self.model, built, tempo, copy=self.copy)
        carry_compiled_state(self.model, built.model, self._successors(built), tempo, placed_in(graph, built))
        return built

    def _successors(self, built: Built) -> Mapping[int, keras.Variable]:
        """The new variable for each of the model's that lives on, by the old one's `id`."""
        if self._traced is None:
            return built.successors
        return {
            id(origin): built.successors[traced]
            for traced, origin in self._traced.sources.items()
            if traced in built.successors
        }


def placed_in(graph: Graph, built: Built) -> list[Placed]:
    """The layers that were built, each with its path and with what of it normalizes and was not there before."""
    kept = {id(weight) for weight in built.successors.values()}
    found = []
    for site in graph.walk():
        made = built.made.get(site.operation)
        if not isinstance(made, keras.layers.Layer):
            continue
        is_new = isinstance(site.operation, LayerSpec) and site.operation.origin is None
        norms = [
            layer
            for layer in _keras.sublayers(made)
            if is_normalization(layer) and (is_new or not kept.intersection(map(id, layer.variables)))
        ]
        found.append(Placed(site.path, made, norms))
    return found
