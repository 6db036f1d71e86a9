"""Edits of a graph: the changes that every pass is made of.

insert     v -> f(v)    on an edge: behind a call site, where all users of its value see the new one,
                        or ahead of one, which alone does
remove     f(v) -> v    a call site whose output is as its first input; a layer may be left in its place
replace    f -> g       an operation, at all of its call sites
configure  f -> f'      a layer, at all of its call sites: some arguments of its constructor change
substitute f(v) -> g(u) a call site, by a call of another layer on a value ahead of it
"""

from __future__ import annotations

import dataclasses
import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import keras

from kerasbn.graph.clone import spec_of
from kerasbn.graph.model import CallSite, Graph, LayerSpec, Operation, Value


@dataclasses.dataclass(frozen=True)
class Edge:
    """A place to put something: next to a call site.

    Attributes:
        address: The address of the call site.
        input: The number of the input that it lies ahead of. `None`: it lies behind the site.
    """

    address: str
    input: int | None = None


def behind(address: str) -> Edge:
    """The edge from a call site to all users of its value. An input that is an output too goes out as it comes in."""
    return Edge(address)


def ahead(address: str, input: int = 0) -> Edge:  # noqa: A002
    """The edge to one input of a call site, from whatever yields it."""
    return Edge(address, input)


@dataclasses.dataclass(frozen=True, eq=False)
class Insert:
    """Put a call of `layer` on an edge."""

    edge: Edge
    layer: LayerSpec


@dataclasses.dataclass(frozen=True, eq=False)
class Remove:
    """Take the call site at `address` out; its users get its first input instead, or what `leaving` makes of it."""

    address: str
    leaving: LayerSpec | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Replace:
    """Put `layer` in the place of `operation`, at every call site."""

    operation: Operation
    layer: LayerSpec


@dataclasses.dataclass(frozen=True, eq=False)
class Configure:
    """Change arguments of a layer, or of the one that replaces it. Several changes of one layer add up."""

    layer: Operation
    arguments: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Substitute:
    """Call `layer` on `value`, one of the same graph, in the place of the call site at `address`."""

    address: str
    layer: Operation
    value: Value


Change: TypeAlias = Insert | Remove | Replace | Configure | Substitute


def apply(graph: Graph, changes: Iterable[Change]) -> Graph:
    """A new graph with the changes made, all of them at once, in graphs inside as well.

    Several insertions on one edge stack up in the order given, the last one nearest to the site.
    """
    return _Editor(graph, changes).edited(graph)


class _Editor:
    """The changes, by what they change, and the operations that were changed so far."""

    def __init__(self, graph: Graph, changes: Iterable[Change]) -> None:
        self._inserted: dict[Edge, list[LayerSpec]] = defaultdict(list)
        self._removed: dict[str, LayerSpec | None] = {}
        self._replaced: dict[Operation, LayerSpec] = {}
        self._substituted: dict[str, Substitute] = {}
        self._configured: dict[Operation, dict[str, Any]] = defaultdict(dict)
        self._edited: dict[Operation, Operation] = {}
        self._calls: dict[Operation, int] = defaultdict(int)
        for change in changes:
            match change:
                case Insert(edge, layer):
                    self._inserted[edge].append(layer)
                case Remove(address, leaving):
                    self._removed[address] = leaving
                case Replace(operation, layer):
                    self._replaced[operation] = layer
                case Configure(layer, arguments):
                    self._configured[layer].update(arguments)
                case Substitute(address):
                    self._substituted[address] = change
        sites = graph.by_address
        missing = (
            {edge.address for edge in self._inserted} | self._removed.keys() | self._substituted.keys()
        ) - sites.keys()
        assert not missing, f"edits of call sites that the graph does not have: {sorted(missing)}"
        for edge in self._inserted:
            exists = edge.input is None or edge.input < len(sites[edge.address].inputs)
            assert exists, f"{edge.address} has no input {edge.input} to insert ahead of"
            assert edge.address not in self._removed, f"{edge.address} is removed, so nothing can be inserted at it"

    def edited(self, graph: Graph) -> Graph:
        """The graph with the changes made; the very same one if none concerns it."""
        sites: list[CallSite] = []
        bypass: dict[Value, Value] = {}
        entering: dict[Value, Value] = {}
        for site in graph.sites:
            if bypass and any(value in bypass for value in site.inputs):
                site = site.with_arguments(bypass)
            if site.address in self._removed:
                if leaving := self._removed[site.address]:
                    sites.append(self._call(leaving, site, site.inputs[0], site.outputs[0]))
                else:
                    bypass[site.outputs[0]] = site.inputs[0]
                continue
            if site.address in self._substituted:
                instead = self._substituted[site.address]
                value = bypass.get(instead.value, instead.value)
                site = self._call(instead.layer, site, value, site.outputs[0])
            operation = self._operation(site.operation)
            if operation is not site.operation:
                site = dataclasses.replace(site, operation=operation)
            around = self._with_insertions(site)
            if site.is_input:
                entering[site.outputs[0]] = around[0].outputs[0]
            sites += around
        if len(sites) == len(graph.sites) and all(map(operator.is_, sites, graph.sites)):
            return graph
        return dataclasses.replace(
            graph,
            inputs=keras.tree.map_structure(lambda value: entering[value], graph.inputs),
            outputs=keras.tree.map_structure(
                lambda value: bypass.get(value, entering.get(value, value)), graph.outputs
            ),
            sites=tuple(sites),
            edited=True,
        )

    def _operation(self, operation: Operation) -> Operation:
        if operation not in self._edited:
            self._edited[operation] = self._changed(operation)
        return self._edited[operation]

    def _changed(self, operation: Operation) -> Operation:
        if isinstance(operation, Graph):
            return self.edited(operation)
        replaced = self._replaced.get(operation, operation)
        if operation not in self._configured:
            return replaced
        spec = replaced if isinstance(replaced, LayerSpec) else spec_of(replaced)
        return spec.with_config(**self._configured[operation])

    def _with_insertions(self, site: CallSite) -> list[CallSite]:
        """A site and what is inserted around it.

        Behind it, the new layer yields the value that the users know, and the site a fresh one: so no user
        has to be told.
        """
        first: list[CallSite] = []
        for index in range(len(site.inputs)):
            for layer in self._inserted.get(ahead(site.address, index), ()):
                value, fresh = site.inputs[index], site.inputs[index].alike()
                first.append(self._call(layer, site, value, fresh))
                site = site.with_input(index, fresh)
        last: list[CallSite] = []
        for layer in self._inserted.get(behind(site.address), ()):
            (value,) = site.outputs
            fresh = value.alike()
            last.insert(0, self._call(layer, site, fresh, value))
            site = dataclasses.replace(site, outputs=(fresh,))
        return [*first, site, *last]

    def _call(self, layer: Any, beside: CallSite, value: Value, result: Value) -> CallSite:
        parent, slash, _ = beside.path.rpartition("/")
        call = self._calls[layer]
        self._calls[layer] += 1
        return CallSite(layer, f"{parent}{slash}{layer.name}", call, args=(value,), kwargs={}, outputs=(result,))
