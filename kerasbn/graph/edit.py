"""Edits of a graph: the three changes that every pass is made of.

insert   v -> f(v)    behind a call site: every user of its value sees the new one
remove   f(v) -> v    a call site with one input and one output of the same shape
replace  f -> g       an operation, at all of its call sites
"""

from __future__ import annotations

import dataclasses
import operator
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeAlias

import keras

from kerasbn.graph.model import CallSite, Graph, LayerSpec, Operation, Value


@dataclasses.dataclass(frozen=True, eq=False)
class Insert:
    """Put a call of `layer` behind the call site at `address`."""

    address: str
    layer: LayerSpec


@dataclasses.dataclass(frozen=True, eq=False)
class Remove:
    """Take the call site at `address` out; its users get its input instead."""

    address: str


@dataclasses.dataclass(frozen=True, eq=False)
class Replace:
    """Put `layer` in the place of `operation`, at every call site."""

    operation: Operation
    layer: LayerSpec


Change: TypeAlias = Insert | Remove | Replace


def apply(graph: Graph, changes: Iterable[Change]) -> Graph:
    """A new graph with the changes made, all of them at once, in graphs inside as well.

    Two insertions behind one site stack up in the order given, the last one nearest to the site.
    """
    return _Editor(graph, changes).edited(graph)


class _Editor:
    """The changes, by what they change, and the graphs inside that were edited so far."""

    def __init__(self, graph: Graph, changes: Iterable[Change]) -> None:
        self._inserted: dict[str, list[LayerSpec]] = defaultdict(list)
        self._removed: set[str] = set()
        self._replaced: dict[Operation, Operation] = {}
        self._calls: dict[LayerSpec, int] = defaultdict(int)
        for change in changes:
            match change:
                case Insert(address, layer):
                    self._inserted[address].append(layer)
                case Remove(address):
                    self._removed.add(address)
                case Replace(operation, layer):
                    self._replaced[operation] = layer
        missing = (self._inserted.keys() | self._removed) - graph.by_address.keys()
        assert not missing, f"edits of call sites that the graph does not have: {sorted(missing)}"

    def edited(self, graph: Graph) -> Graph:
        """The graph with the changes made; the very same one if none concerns it."""
        bypass: dict[Value, Value] = {}

        def current(leaf: Any) -> Any:
            return bypass.get(leaf, leaf) if isinstance(leaf, Value) else leaf

        sites: list[CallSite] = []
        for site in graph.sites:
            if bypass and any(value in bypass for value in site.inputs):
                site = site.with_arguments(current)
            if site.address in self._removed:
                (bypass[site.outputs[0]],) = site.inputs
                continue
            operation = self._operation(site.operation)
            if operation is not site.operation:
                site = dataclasses.replace(site, operation=operation)
            sites += self._with_insertions(site)
        if len(sites) == len(graph.sites) and all(map(operator.is_, sites, graph.sites)):
            return graph
        outputs = keras.tree.map_structure(current, graph.outputs)
        return dataclasses.replace(graph, sites=tuple(sites), outputs=outputs, edited=True)

    def _operation(self, operation: Operation) -> Operation:
        if isinstance(operation, Graph) and operation not in self._replaced:
            self._replaced[operation] = self.edited(operation)
        return self._replaced.get(operation, operation)

    def _with_insertions(self, site: CallSite) -> list[CallSite]:
        """A site and what is inserted behind it.

        The new layer yields the value that the users know, and the site a fresh one: so no user
        has to be told.
        """
        stack: list[CallSite] = []
        for layer in self._inserted.get(site.address, ()):
            (value,) = site.outputs
            fresh = value.alike()
            path = _path_beside(site, layer)
            stack.insert(0, CallSite(layer, path, self._calls[layer], args=(fresh,), kwargs={}, outputs=(value,)))
            self._calls[layer] += 1
            site = dataclasses.replace(site, outputs=(fresh,))
        return [site, *stack]


def _path_beside(site: CallSite, layer: LayerSpec) -> str:
    parent, slash, _ = site.path.rpartition("/")
    return f"{parent}{slash}{layer.name}"
