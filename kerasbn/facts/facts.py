"""The facts about a graph that passes share. Each is worked out when it is first asked for, and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import keras

from kerasbn.facts.blocks import Blocks
from kerasbn.facts.flow import Flow
from kerasbn.facts.gates import gates
from kerasbn.facts.heads import values_that_become_outputs
from kerasbn.facts.trunk import Trunk
from kerasbn.graph.model import CallSite, Graph, Operation, Value
from kerasbn.reasons import Refusal


class Facts:
    """What is known of one graph.

    Attributes:
        graph: The graph.
        kept: The custom layers that could not be opened, with the reason.
    """

    def __init__(self, graph: Graph, kept: Mapping[keras.layers.Layer, Refusal] = MappingProxyType({})) -> None:
        self.graph = graph
        self.kept = kept

    @cached_property
    def flow(self) -> Flow:
        """The graph in its flat form, with roles."""
        return Flow(self.graph)

    @cached_property
    def blocks(self) -> Blocks:
        """Which blocks are normalized."""
        return Blocks(self.flow)

    @cached_property
    def trunk(self) -> Trunk:
        """The trunk of a pre-activation network."""
        return Trunk(self.flow)

    @cached_property
    def gates(self) -> frozenset[CallSite]:
        """The linear sites that compute squeeze-and-excite gates."""
        return frozenset(gates(self.flow))

    def is_head(self, site: CallSite) -> bool:
        """Whether the site's value is a model output, or becomes one through activations and reshaping."""
        return not self._become_outputs.isdisjoint(site.outputs)

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
        return frozenset(_trained(self.graph, told=None))

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

    @cached_property
    def _become_outputs(self) -> set[Value]:
        return values_that_become_outputs(self.flow)


def _grouped(pairs: Iterator[tuple[Any, CallSite]]) -> dict[Any, list[CallSite]]:
    groups: dict[Any, list[CallSite]] = {}
    for key, site in pairs:
        groups.setdefault(key, []).append(site)
    return groups


def _trained(graph: Graph, told: Any) -> Iterator[str]:
    """What a model is told goes for all inside it, in Keras, whatever the calls there say."""
    for site in graph.sites:
        positional = next((argument for argument in site.args[1:2] if isinstance(argument, int)), None)
        training = site.kwargs.get("training", positional) if told is None else told
        if isinstance(site.operation, Graph):
            yield from _trained(site.operation, training)
        elif training is not None and (isinstance(training, Value) or training):
            yield site.address
