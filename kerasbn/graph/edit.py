"""Edits of a graph: the three changes that every pass is made of.

insert   v -> f(v)    behind a call site: every user of its value sees the new one
remove   f(v) -> v    a call site with one input and one output of the same shape
replace  f -> g       an operation, at all of its call sites
"""

from __future__ import annotations

import dataclasses
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
    """A new graph with the changes made, all of them at once.

    Two insertions behind one site stack up in the order given, the last one nearest to the site.
    """
    inserted: dict[str, list[LayerSpec]] = defaultdict(list)
    removed: set[str] = set()
    replaced: dict[Operation, LayerSpec] = {}
    for change in changes:
        match change:
            case Insert(address, layer):
                inserted[address].append(layer)
            case Remove(address):
                removed.add(address)
            case Replace(operation, layer):
                replaced[operation] = layer
    missing = (inserted.keys() | removed) - graph.by_address.keys()
    assert not missing, f"edits of call sites that the graph does not have: {sorted(missing)}"

    calls: dict[LayerSpec, int] = defaultdict(int)
    bypass: dict[Value, Value] = {}

    def current(leaf: Any) -> Any:
        return bypass.get(leaf, leaf) if isinstance(leaf, Value) else leaf

    sites: list[CallSite] = []
    for site in graph.sites:
        if bypass and any(value in bypass for value in site.inputs):
            site = site.with_arguments(current)
        if site.address in removed:
            (bypass[site.outputs[0]],) = site.inputs
            continue
        if site.operation in replaced:
            site = dataclasses.replace(site, operation=replaced[site.operation])
        # The new layer yields the value that the users know, and the site a fresh one: so no user
        # has to be told.
        stack = []
        for layer in inserted[site.address]:
            (value,) = site.outputs
            fresh = value.alike()
            stack.append(
                CallSite(layer, _path_beside(site, layer), calls[layer], args=(fresh,), kwargs={}, outputs=(value,))
            )
            calls[layer] += 1
            site = dataclasses.replace(site, outputs=(fresh,))
        sites += [site, *reversed(stack)]
    return dataclasses.replace(graph, sites=tuple(sites), outputs=keras.tree.map_structure(current, graph.outputs))


def _path_beside(site: CallSite, layer: LayerSpec) -> str:
    parent, slash, _ = site.path.rpartition("/")
    return f"{parent}{slash}{layer.name}"
