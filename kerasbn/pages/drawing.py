"""A network as a drawing: what is drawn where. The layout is graphlay's."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import graphlay

from kerasbn.pages.content import Mark, Network, Node
from kerasbn.pages.repeats import Stretch, stretches
from kerasbn.plan_table import span_of

_SMALL = 60
_LETTER = 6.65  # the widest of the usual monospaced fonts at 11 px
_LONGEST_NAME = 40
_LONGEST_TYPE = 26
_LINE, _PADDING, _MARGIN = 20.0, 7.0, 10.0
_BADGE, _GAP = 20.0, 14.0
_ROUND = 6.0
_OPTIONS = {
    "direction": "topbottom",
    "routing": {"style": "orthogonal"},
    "spacing": {
        "layer_gap": 30.0,
        "node_gap": 20.0,
        "dummy_gap": 16.0,
        "stub": 10.0,
        "compound_padding": 10.0,
        "compound_header": 6.0,
    },
}


@dataclasses.dataclass(frozen=True)
class Line:
    """A node in a box.

    Attributes:
        y: Its upper edge.
        label: Its name, as long as there is room for.
        type: Its kind, likewise.
        name: Its whole name.
        node: The node, the first one of those that a block that repeats itself stands for; marks are of them all.
        times: How many those are.
    """

    y: float
    label: str
    type: str
    name: str
    node: Node
    times: int

    @property
    def told(self) -> str:
        """All there is to tell of it, for whoever points at it or listens."""
        times = f", {self.times} times" if self.times > 1 else ""
        shape = f", yields {self.node.shape}" if self.node.shape and self.times == 1 else ""
        return f"{self.name}: {self.node.type}{times}{shape}"

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What becomes of it."""
        return self.node.marks


@dataclasses.dataclass(frozen=True)
class Box:
    """Nodes in a row, none of which anything else is connected with.

    Attributes:
        x: Its left edge.
        y: Its upper edge.
        width: How wide it is.
        height: How high it is.
        lines: The nodes.
        foot: What it yields.
        is_output: Whether that is an output of the network.
    """

    x: float
    y: float
    width: float
    height: float
    lines: tuple[Line, ...]
    foot: str
    is_output: bool


@dataclasses.dataclass(frozen=True)
class Frame:
    """What is around a block that repeats itself.

    Attributes:
        x: Its left edge.
        y: Its upper edge.
        width: How wide it is.
        height: How high it is.
        times: How many times the block comes.
    """

    x: float
    y: float
    width: float
    height: float
    times: int


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A network, drawn.

    Attributes:
        width: How wide it is.
        height: How high it is.
        boxes: The boxes, from the top down.
        frames: What is around them.
        edges: What runs between them, as data of SVG paths.
        heads: The heads of the arrows, likewise.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]
    frames: tuple[Frame, ...]
    edges: tuple[str, ...]
    heads: tuple[str, ...]


def drawing_of(network: Network, *, whole: bool | None = None) -> Drawing:
    """Draw a network.

    Args:
        network: The network.
        whole: Whether each node is drawn, or blocks that repeat themselves are drawn once. Defaults to
            `None`: each, where there are few.
    """
    whole = is_small(network) if whole is None else whole
    found = [Stretch(0, len(network.nodes), 1)] if whole else stretches(network)
    outline = _Outline(network, found)
    graph = graphlay.Graph()
    frames: dict[Stretch, int] = {}
    for chain in outline.chains:
        inside: dict[str, Any] = {}
        if chain.stretch.times > 1:
            if chain.stretch not in frames:
                frames[chain.stretch] = graph.node(("frame", chain.stretch.start), width=1, height=1)
            inside = {"parent": frames[chain.stretch]}
        graph.node(chain.nodes[0], width=chain.width, height=chain.height, **inside)
    for source, target in outline.edges:
        graph.edge(source, target)
    return _placed(outline, graphlay.layout(graph, options=_OPTIONS))


def is_small(network: Network) -> bool:
    """Whether a network is small enough for each node to be drawn."""
    return len(network.nodes) <= _SMALL


@dataclasses.dataclass(frozen=True)
class _Chain:
    """The nodes of a box."""

    nodes: tuple[int, ...]
    stretch: Stretch
    lines: tuple[Line, ...]
    foot: str
    is_output: bool

    @property
    def width(self) -> float:
        texts = [len(line.label) + len(line.type) for line in self.lines]
        badge = _BADGE if any(line.marks for line in self.lines) else _PADDING
        return max(max(texts) * _LETTER + badge + _GAP + _PADDING, len(self.foot) * _LETTER + 2 * _PADDING)

    @property
    def height(self) -> float:
        return _LINE * (len(self.lines) + bool(self.foot))


class _Outline:
    """What is to be drawn: the first of each block that repeats itself, its nodes in boxes, and what connects them."""

    def __init__(self, network: Network, found: Sequence[Stretch]) -> None:
        self._network = network
        self._stretch_of = {place: each for each in found for place in range(each.start, each.stop)}
        connections = dict.fromkeys(self._connections())
        into: dict[int, list[int]] = defaultdict(list)
        out_of: dict[int, list[int]] = defaultdict(list)
        for source, target in connections:
            into[target].append(source)
            out_of[source].append(target)
        head_of: dict[int, int] = {}
        members: dict[int, list[int]] = {}
        for stretch in found:
            for place in range(stretch.start, stretch.start + stretch.period):
                sources = into[place]
                joined = (
                    len(sources) == 1
                    and len(out_of[sources[0]]) == 1
                    and self._stretch_of[sources[0]] == stretch
                    and not network.nodes[sources[0]].is_output
                )
                head_of[place] = head_of[sources[0]] if joined else place
                members.setdefault(head_of[place], []).append(place)
        self.chains = [self._chain(tuple(places)) for places in members.values()]
        self.edges = [(head_of[source], target) for source, target in connections if head_of[source] != head_of[target]]

    def _connections(self) -> Iterator[tuple[int, int]]:
        """The edges between the nodes that are drawn; none from one block to the next of its kind."""
        for source, target in self._network.edges:
            ends = [self._stretch_of[place] for place in (source, target)]
            times = [(place - end.start) // end.period for place, end in zip((source, target), ends, strict=True)]
            if ends[0] != ends[1] or times[0] == times[1]:
                yield self._drawn(source), self._drawn(target)

    def _drawn(self, place: int) -> int:
        stretch = self._stretch_of[place]
        return stretch.start + (place - stretch.start) % stretch.period

    def _chain(self, places: tuple[int, ...]) -> _Chain:
        stretch = self._stretch_of[places[0]]
        last = self._network.nodes[places[-1]]
        shape = span_of([each.shape for each in self._alike(places[-1])])
        foot = " · ".join(filter(None, ("output" if last.is_output else "", shape)))
        lines = tuple(self._line(place, index) for index, place in enumerate(places))
        return _Chain(places, stretch, lines, foot, last.is_output)

    def _line(self, place: int, index: int) -> Line:
        alike = self._alike(place)
        name = span_of([node.name for node in alike])
        label, kind = _shortened(name.removesuffix("#0"), _LONGEST_NAME), _shortened(alike[0].type, _LONGEST_TYPE)
        texts = zip(*([mark.text for mark in node.marks] for node in alike), strict=True)
        marks = (Mark(mark.kind, span_of(text)) for mark, text in zip(alike[0].marks, texts, strict=True))
        return Line(index * _LINE, label, kind, name, dataclasses.replace(alike[0], marks=tuple(marks)), len(alike))

    def _alike(self, place: int) -> tuple[Node, ...]:
        stretch = self._stretch_of[place]
        return self._network.nodes[place : stretch.stop : stretch.period]


def _placed(outline: _Outline, layout: Any) -> Drawing:
    low, high = (layout.bounds[end] for end in ("min", "max"))
    left, top = low["x"] - _MARGIN, low["y"] - _MARGIN

    def corner(placed: Any) -> tuple[float, float, float, float]:
        (x, y), (width, height) = (placed["center"].values(), placed["size"].values())
        return round(x - width / 2 - left, 1), round(y - height / 2 - top, 1), round(width, 1), round(height, 1)

    placed = dict(zip(layout.ids, layout.nodes, strict=True))
    times = {chain.stretch.start: chain.stretch.times for chain in outline.chains}
    runs = [[(point["x"] - left, point["y"] - top) for point in edge["points"]] for edge in layout.edges]
    return Drawing(
        width=round(high["x"] - left + _MARGIN),
        height=round(high["y"] - top + _MARGIN),
        boxes=tuple(
            Box(*corner(placed[chain.nodes[0]]), chain.lines, chain.foot, chain.is_output) for chain in outline.chains
        ),
        frames=tuple(Frame(*corner(each), times[id_[1]]) for id_, each in placed.items() if isinstance(id_, tuple)),
        edges=tuple(_line_along(run) for run in runs),
        heads=tuple(_head_of(run) for run in runs),
    )


def _line_along(points: Sequence[tuple[float, float]]) -> str:
    """A path along points, its corners rounded."""
    path = [f"M{_at(points[0])}"]
    for before, corner, behind in zip(points, points[1:], points[2:], strict=False):
        path.append(f"L{_at(_towards(corner, before))}Q{_at(corner)} {_at(_towards(corner, behind))}")
    return f"{''.join(path)}L{_at(points[-1])}"


def _towards(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """A point a little way from one to another, half of it at most."""
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])  # along an axis
    part = min(_ROUND / length, 0.5) if length else 0.0
    return start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])


def _head_of(points: Sequence[tuple[float, float]]) -> str:
    """The head of the arrow at the end of a path."""
    (x, y), (from_x, from_y) = points[-1], points[-2]
    if abs(x - from_x) > abs(y - from_y):
        back = x - 6 if x > from_x else x + 6
        return f"M{_at((x, y))}L{_at((back, y - 3.5))}V{round(y + 3.5, 1):g}Z"
    back = y - 6 if y > from_y else y + 6
    return f"M{_at((x, y))}L{_at((x - 3.5, back))}H{round(x + 3.5, 1):g}Z"


def _at(point: tuple[float, float]) -> str:
    return " ".join(f"{round(each, 1):g}" for each in point)


def _shortened(text: str, longest: int) -> str:
    """A text with its middle left out where it is too long: the ends of names tell more."""
    if len(text) <= longest:
        return text
    first = (longest - 1) // 3
    return f"{text[:first]}…{text[first - longest + 1 :]}"
