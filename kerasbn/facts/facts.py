"""The facts about a graph that passes share. Each is worked out when it is first asked for, and kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.facts.attention import attended
from kerasbn.facts.blocks import Blocks
from kerasbn.facts.branches import normalized_branches
from kerasbn.facts.flow import Flow
from kerasbn.facts.gates import Gates
from kerasbn.facts.heads import heads
from kerasbn.facts.stacks import heights
from kerasbn.facts.trunk import Trunk
from kerasbn.facts.twins import Twins
from kerasbn.graph.edit import Change, apply
from kerasbn.graph.model import CallSite, Graph, Operation, Value
from kerasbn.reasons import Refusal


class Facts:
    """What is known of one graph.

    Attributes:
        graph: The graph.
        kept: The custom layers that could not be opened, with the reason.
        accumulation: Over how many batches the optimizer of the model accumulates gradients.
    """

    def __init__(
        self,
        graph: Graph,
        kept: Mapping[keras.layers.Layer, Refusal] = MappingProxyType({}),
        accumulation: int = 1,
    ) -> None:
        self.graph = graph
        self.kept = kept
        self.accumulation = accumulation

    def after(self, changes: Iterable[Change]) -> Facts:
        """The facts about the graph with some changes made."""
        made = tuple(changes)
        return Facts(apply(self.graph, made), self.kept, self.accumulation) if made else self

    @cached_property
    def flow(self) -> Flow:
        """The graph in its flat form, with roles."""
        return Flow(self.graph)

    @cached_property
    def blocks(self) -> Blocks:
        """Which blocks are normalized."""
        return Blocks(self.flow)

    @cached_property
    def normalized_branches(self) -> frozenset[CallSite]:
        """The linear sites on residual branches that are normalized."""
        return normalized_branches(self.flow)

    @cached_property
    def trunk(self) -> Trunk:
        """The trunk of a pre-activation network."""
        return Trunk(self.flow)

    @cached_property
    def gates(self) -> Gates:
        """What scales or shifts the features of another branch."""
        return Gates(self.flow)

    @cached_property
    def attended(self) -> frozenset[Value]:
        """The values that an attention multiplies, and those that become one, joined or through an activation."""
        return frozenset(attended(self.flow))

    @cached_property
    def twins(self) -> Twins:
        """Which calls of a layer are twins."""
        return Twins(self.flow)

    @cached_property
    def heads(self) -> frozenset[CallSite]:
        """The sites that yield predictions."""
        return heads(self.flow)

    @cached_property
    def heights(self) -> Mapping[CallSite, int]:
        """How many recurrent layers there are one upon another where each of them is called."""
        return heights(self.flow)

    @cached_property
    def calls(self) -> dict[Operation, list[CallSite]]:
        """The call sites of each operation in the flat form."""
        return _grouped((site.operation, site) for site in self.flow.sites)

    @cached_property
    def occurrences(self) -> dict[str, list[CallSite]]:
        """The call sites at each address in the flat form: several in a model that is called several times."""
        return _grouped((site.address, site) for site in self.flow.sites)

    @cached_property
    def trained(self) -> frozenset[str]:
        """The addresses of the calls that run as in training at inference too: told to, or inside a model that is."""
        return frozenset(address for address, told in self._told.items() if any(map(_may_train, told)))

    def never_trains(self, layer: Operation) -> str | None:
        """Why a layer never runs as in training, or never learns; `None` if it does."""
        if isinstance(layer, keras.layers.Layer) and layer.weights and not layer.trainable_weights:
            return "frozen"
        if all(told is False for site in self.calls[layer] for told in self._told[site.address]):
            return "called with training=False"
        return None

    @cached_property
    def _told(self) -> dict[str, list[Any]]:
        """What each call is told of training, by its own arguments or those of a model around it, by its address."""
        return _grouped(_told_of_training(self.graph, None))

    @cached_property
    def tied(self) -> frozenset[keras.layers.Layer]:
        """The layers that share a weight with another one."""
        owners: dict[int, keras.layers.Layer] = {}
        found: set[keras.layers.Layer] = set()
        for _, layer in self.graph.layers():
            for variable in layer.variables:
                owner = owners.setdefault(id(variable), layer)
                if owner is not layer:
                    found |= {owner, layer}
        return frozenset(found)

    @cached_property
    def named_outputs(self) -> frozenset[str]:
        """The addresses of the calls that yield an output of their own model, which goes by their name."""
        inside = {site.operation: None for site in self.graph.walk() if isinstance(site.operation, Graph)}
        return frozenset(
            site.address
            for graph in (self.graph, *inside)
            for site in graph.sites
            if not graph.output_values.isdisjoint(site.outputs)
        )


def _grouped(pairs: Iterator[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for key, each in pairs:
        groups.setdefault(key, []).append(each)
    return groups


def _may_train(told: Any) -> bool:
    return told is not None and (isinstance(told, Value) or bool(told))


def _told(site: CallSite, positional: Any) -> Any:
    """What a call says of training; `None` where that is a layer's default, which Keras records all the same."""
    training = site.kwargs.get("training", positional)
    return None if training is False and _keras.training_by_default(site.operation) is False else training


def _told_of_training(graph: Graph, told: Any) -> Iterator[tuple[str, Any]]:
    """What a model is told goes for all inside it, in Keras, whatever the calls there say."""
    for site in graph.sites:
        positional = next((argument for argument in site.args[1:2] if isinstance(argument, int)), None)
        training = _told(site, positional) if told is None else told
        if isinstance(site.operation, Graph):
            yield from _told_of_training(site.operation, training)
        else:
            yield site.address, training
