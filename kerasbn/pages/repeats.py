"""Where a network repeats itself."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeAlias

from kerasbn.pages.content import Network

_LONGEST_PERIOD = 120
_WORTH_SAVING = 4
_FAR = 50
_NUMBER = re.compile(r"\d+[a-z]?(?![a-z])")  # "2b" as well

_Cost: TypeAlias = tuple[int, int, int]
"""How much there is to read, and of two that are as good, how well the blocks begin."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Nodes in a row that are the same block, one or more times over.

    Attributes:
        start: The place of the first.
        period: How many make the block.
        times: How many times it comes.
    """

    start: int
    period: int
    times: int

    @property
    def stop(self) -> int:
        """The place behind the last."""
        return self.start + self.period * self.times


def stretches(network: Network) -> list[Stretch]:
    """All nodes in their order, as blocks that come several times and what is between; the fewest that can be.

    The blocks of a stretch are alike: calls of the same kinds at the same scale, with names that differ by numbers
    alone, of which the same becomes, and each gets its values from the same places, counted back from where it stands;
    but for what is used far and wide, such as a mask, which all get from one place. Where a block could as well begin
    elsewhere, it is where the fewest values go in.
    """
    users: dict[int, list[int]] = defaultdict(list)
    for source, target in network.edges:
        users[source].append(target)
    runs = _runs(_kinds(network, users))
    entering = _entering(len(network.nodes), users)
    count = len(network.nodes)
    costs: list[_Cost] = [(0, 0, 0)] * (count + 1)  # of all from each place on
    found: list[Stretch | None] = [None] * count
    for place in reversed(range(count)):
        read, values, uses = costs[place + 1]
        costs[place] = read + 1, values, uses
        for stretch in _stretches_at(place, runs):
            read, values, uses = costs[stretch.stop]
            more_values, more_uses = entering[place]
            cost = read + stretch.period + _WORTH_SAVING - 1, values + more_values, uses - more_uses
            if cost <= costs[place]:
                costs[place], found[place] = cost, stretch
    return list(_joined(found))


def _stretches_at(place: int, runs: Mapping[int, Sequence[int]]) -> Iterator[Stretch]:
    """The stretches that begin at a place and are worth it: with the last block, and without it."""
    for period, run in runs.items():
        most = run[place] // period + 1
        for times in range(max(2, most - 1), most + 1):
            if (times - 1) * period >= _WORTH_SAVING:
                yield Stretch(place, period, times)


def _joined(found: Sequence[Stretch | None]) -> Iterator[Stretch]:
    """The stretches that were found best, and what is between."""
    start = place = 0
    while place < len(found):
        stretch = found[place]
        if stretch is None:
            place += 1
            continue
        if start < place:
            yield Stretch(start, place - start, 1)
        yield stretch
        start = place = stretch.stop
    if start < place:
        yield Stretch(start, place - start, 1)


def _kinds(network: Network, users: Mapping[int, Sequence[int]]) -> list[Hashable]:
    """What must be the same of nodes that are alike."""
    sources: dict[int, list[int]] = defaultdict(list)
    for source, target in network.edges:
        sources[target].append(~source if max(users[source]) - source > _FAR else target - source)
    return [
        (
            _NUMBER.sub("0", node.name),
            *(node.type, node.scale, node.is_output),
            *(tuple(mark.kind for mark in node.marks), tuple(sources[place])),
        )
        for place, node in enumerate(network.nodes)
    ]


def _runs(kinds: Sequence[Hashable]) -> dict[int, list[int]]:
    """For each period and each node, how many from there on are of the kind of the one a period further."""
    runs = {}
    for period in range(1, min(_LONGEST_PERIOD, len(kinds) // 2) + 1):
        run = [0] * (len(kinds) + 1)
        for place in reversed(range(len(kinds) - period)):
            run[place] = run[place + 1] + 1 if kinds[place] == kinds[place + period] else 0
        if max(run) >= period:
            runs[period] = run
    return runs


def _entering(count: int, users: Mapping[int, Sequence[int]]) -> list[tuple[int, int]]:
    """For each place, how many values go from ahead of it to behind it, and how often they are used there."""
    values, uses = [0] * (count + 1), [0] * (count + 1)
    for source, targets in users.items():
        for place in range(source + 1, max(targets) + 1):
            values[place] += 1
            uses[place] += sum(target >= place for target in targets)
    return list(zip(values, uses, strict=True))
