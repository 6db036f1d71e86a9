"""What a plan does to a graph, as plain data to show: rows with their reasons, the network before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from kerasbn.graph.edit import Configure, Insert, Remove, Replace, Substitute, apply
from kerasbn.graph.model import CallSite, Graph, LayerSpec, Value, core_of, type_of
from kerasbn.pages.content import Change, Kind, Mark, Network, Node, Row
from kerasbn.passes.proposal import Edit
from kerasbn.reasons import Skip

_TIMES = "\u00d7"


def picture_of(
    heading: str, graph: Graph, edits: Iterable[Edit], skips: Iterable[Skip], outcome: str, notes: tuple[str, ...]
) -> Change:
    """What a plan does to a graph.

    Args:
        heading: What the plan is about.
        graph: The graph.
        edits: The edits.
        skips: What is left alone.
        outcome: What comes of it, in a line.
        notes: What else to know.
    """
    edits, skips = tuple(edits), tuple(skips)
    order = {address: index for index, address in enumerate(graph.by_address)}
    rows = [Row(edit.site, edit.kind, "", edit.detail) for edit in edits]
    rows += [Row(skip.site, "skip", skip.reason.value, skip.detail) for skip in skips]
    changes = [change for edit in edits for change in edit.changes]
    left_alone = defaultdict(list)
    for skip in skips:
        left_alone[skip.site].append(Mark("skip", _why(skip)))
    return Change(
        heading=heading,
        outcome=outcome,
        rows=tuple(sorted(rows, key=lambda row: order[row.site])),
        reasons={skip.reason.value: skip.reason.meaning for skip in skips},
        notes=notes,
        before=_network(graph, _Before(edits, left_alone)),
        after=_network(apply(graph, changes), _After(edits, left_alone)),
    )


def _why(skip: Skip) -> str:
    return f"{skip.reason.value}{f', {skip.detail}' if skip.detail else ''}. {skip.reason.meaning}"


class _Before:
    """What is said of the call sites of the graph: what happens to them."""

    def __init__(self, edits: Iterable[Edit], left_alone: Mapping[str, list[Mark]]) -> None:
        self._marks = defaultdict(list, {site: [*marks] for site, marks in left_alone.items()})
        for edit in edits:
            if edit.kind != "insert":
                self._marks[edit.site].append(Mark(edit.kind, edit.detail))

    def of(self, site: CallSite) -> tuple[str, tuple[Mark, ...]]:
        """The site that it is said of, and the marks."""
        return site.address, tuple(self._marks.get(site.address, ()))


class _After:
    """What is said of the call sites of the edited graph: what made them what they are."""

    def __init__(self, edits: Iterable[Edit], left_alone: Mapping[str, list[Mark]]) -> None:
        self._left_alone = left_alone
        self._by_layer: dict[Any, tuple[str, Mark]] = {}
        self._by_site: dict[str, tuple[str, Mark]] = {}
        for edit in edits:
            for change in edit.changes:
                match change:
                    case Insert(layer=layer):
                        self._by_layer[layer] = edit.site, _mark("insert", edit)
                    case Remove(leaving=layer) if layer is not None:
                        self._by_layer[layer] = edit.site, _mark(edit.kind, edit)
                    case Replace(layer=layer) | Substitute(layer=layer):
                        self._by_layer[layer] = edit.site, _mark(edit.kind, edit)
                    case Configure() if edit.kind != "insert":
                        self._by_site[edit.site] = edit.site, _mark(edit.kind, edit)

    def of(self, site: CallSite) -> tuple[str, tuple[Mark, ...]]:
        """The site that it is said of, and the marks."""
        origin, mark = self._by_layer.get(site.operation) or self._by_site.get(site.address) or (site.address, None)
        left_alone = self._left_alone.get(site.address, ()) if mark is None else ()
        return origin, (*([mark] if mark else ()), *left_alone)


def _mark(kind: Kind, edit: Edit) -> Mark:
    """What is said of a layer that an edit put there."""
    return Mark(kind, f"{edit.detail}, for {edit.site}" if edit.detail else f"for {edit.site}")


def _network(graph: Graph, marks: _Before | _After) -> Network:
    flat = graph.flat
    yielded: dict[Value, int] = {}
    nodes: list[Node] = []
    edges: list[tuple[int, int]] = []
    for place, site in enumerate(flat.sites):
        edges += dict.fromkeys((yielded[value], place) for value in site.inputs)
        yielded.update(dict.fromkeys(site.outputs, place))
        origin, what = marks.of(site)
        is_output = not flat.output_values.isdisjoint(site.outputs)
        nodes.append(Node(site.address, _type_of(site), *_shape_of(site), origin, what, is_output))
    return Network(tuple(nodes), tuple(edges))


def _type_of(site: CallSite) -> str:
    """The class of what is called, with what it wraps and its activation."""
    core = core_of(site.operation)
    inside = "" if core is site.operation else f" of {type_of(core).__name__}"
    activation = core.config.get("activation") if isinstance(core, LayerSpec) else getattr(core, "activation", None)
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", "")
    return f"{type_of(site.operation).__name__}{inside}{f', {name}' if name and name != 'linear' else ''}"


def _shape_of(site: CallSite) -> tuple[str, str]:
    """The shape of the first value that a call yields, without the batch, and the same without the channels."""
    sizes = ["?" if size is None else str(size) for size in site.outputs[0].shape[1:]]
    spatial = sizes[1:] if keras.config.image_data_format() == "channels_first" and len(sizes) > 2 else sizes[:-1]
    return _TIMES.join(sizes), _TIMES.join(spatial)
