"""Edits of a graph: the three changes that every pass is made of.

insert   v -> f(v)    behind a call site: every user of its value sees the new one;
                      or behind an input of the model: likewise;
                      or ahead of a call site: that one alone does
remove   f(v) -> v    a call site whose output is as its first input; a layer may be left in its place
replace  f -> g       an operation, at all of its call sites
"""

from __future__ import annotations

import dataclasses
import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import keras

from kerasbn.graph.model import CallSite, Graph, LayerSpec, Operation, Value


@dataclasses.dataclass(frozen=True, eq=False)
class Insert:
    """Put a call of `layer` behind the call site at `address`."""

    address: str
    layer: LayerSpec


@dataclasses.dataclass(frozen=True, eq=False)
class InsertAhead:
    """Put a call of `layer` ahead of the call site at `address`, which has one input."""

    address: str
    layer: LayerSpec


@dataclasses.dataclass(frozen=True, eq=False)
class InsertBehindInput:
    """Put a call of `layer` behind the model's input of this name."""

    name: str
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


Change: TypeAlias = Insert | InsertAhead | InsertBehindInput | Remove | Replace


def apply(graph: Graph, changes: Iterable[Change]) -> Graph:
    """A new graph with the changes made, all of them at once, in graphs inside as well.

    Two insertions behind one site stack up in the order given, the last one nearest to the site.
    """
    return _Editor(graph, changes).edited_whole(graph)


class _Editor:
    """The changes, by what they change, and the graphs inside that were edited so far."""

    def __init__(self, graph: Graph, changes: Iterable[Change]) -> None:
        self._behind: dict[str, list[LayerSpec]] = defaultdict(list)
        self._ahead: dict[str, list[LayerSpec]] = defaultdict(list)
        self._inputs: dict[str, LayerSpec] = {}
        self._removed: dict[str, LayerSpec | None] = {}
        self._replaced: dict[Operation, Operation] = {}
        self._calls: dict[LayerSpec, int] = defaultdict(int)
        for change in changes:
            match change:
                case Insert(address, layer):
                    self._behind[address].append(layer)
                case InsertAhead(address, layer):
                    self._ahead[address].append(layer)
                case InsertBehindInput(name, layer):
                    self._inputs[name] = layer
                case Remove(address, leaving):
                    self._removed[address] = leaving
                case Replace(operation, layer):
                    self._replaced[operation] = layer
        missing = (self._behind.keys() | self._ahead.keys() | self._removed.keys()) - graph.by_address.keys()
        assert not missing, f"edits of call sites that the graph does not have: {sorted(missing)}"

    def edited_whole(self, graph: Graph) -> Graph:
        """The outermost graph, with the changes to its inputs as well."""
        bypass: dict[Value, Value] = {}
        sites: list[CallSite] = []
        for value in keras.tree.flatten(graph.inputs):
            if layer := self._inputs.get(value.spec.name):
                bypass[value] = value.alike()
                sites.append(CallSite(layer, layer.name, 0, args=(value,), kwargs={}, outputs=(bypass[value],)))
        return self.edited(graph, sites, bypass)

    def edited(
        self, graph: Graph, sites: Iterable[CallSite] = (), instead: Mapping[Value, Value] = MappingProxyType({})
    ) -> Graph:
        """The graph with the changes made; the very same one if none concerns it.

        Args:
            graph: The graph.
            sites: Call sites to begin with. Defaults to none.
            instead: Values to use in the place of others. Defaults to none.
        """
        sites, bypass = list(sites), dict(instead)
        for site in graph.sites:
            if bypass and any(value in bypass for value in site.inputs):
                site = site.with_arguments(bypass)
            if site.address in self._removed:
                if leaving := self._removed[site.address]:
                    sites.append(self._call(leaving, site, site.inputs[0], site.outputs[0]))
                else:
                    bypass[site.outputs[0]] = site.inputs[0]
                continue
            operation = self._operation(site.operation)
            if operation is not site.operation:
                site = dataclasses.replace(site, operation=operation)
            sites += self._with_insertions(site)
        if len(sites) == len(graph.sites) and all(map(operator.is_, sites, graph.sites)):
            return graph
        outputs = keras.tree.map_structure(lambda value: bypass.get(value, value), graph.outputs)
        return dataclasses.replace(graph, sites=tuple(sites), outputs=outputs, edited=True)

    def _operation(self, operation: Operation) -> Operation:
        if isinstance(operation, Graph) and operation not in self._replaced:
            self._replaced[operation] = self.edited(operation)
        return self._replaced.get(operation, operation)

    def _with_insertions(self, site: CallSite) -> list[CallSite]:
        """A site and what is inserted around it.

        Behind it, the new layer yields the value that the users know, and the site a fresh one: so no user
        has to be told.
        """
        ahead: list[CallSite] = []
        for layer in self._ahead.get(site.address, ()):
            (value,) = site.inputs
            fresh = value.alike()
            ahead.append(self._call(layer, site, value, fresh))
            site = site.with_arguments({value: fresh})
        behind: list[CallSite] = []
        for layer in self._behind.get(site.address, ()):
            (value,) = site.outputs
            fresh = value.alike()
            behind.insert(0, self._call(layer, site, fresh, value))
            site = dataclasses.replace(site, outputs=(fresh,))
        return [*ahead, site, *behind]

    def _call(self, layer: LayerSpec, beside: CallSite, value: Value, result: Value) -> CallSite:
        parent, slash, _ = beside.path.rpartition("/")
        call = self._calls[layer]
        self._calls[layer] += 1
        return CallSite(layer, f"{parent}{slash}{layer.name}", call, args=(value,), kwargs={}, outputs=(result,))
