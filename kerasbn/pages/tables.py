"""Rows of a change as a table, those that repeat themselves shown once."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from kerasbn.pages.content import Network, Row
from kerasbn.plan_table import grouped


@dataclasses.dataclass(frozen=True)
class Shown:
    """A row of a table.

    Attributes:
        row: What becomes of a call, or of several but for their numbers, which are ranges.
        times: Of how many.
        first: Of how many rows it is the first one that come that many times, 0 if it is not the first.
    """

    row: Row
    times: int
    first: int


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows to show.

    Attributes:
        rows: The rows.
        places: The row of each call, the first one if it has several.
    """

    rows: tuple[Shown, ...]
    places: Mapping[str, int]

    @property
    def repeats(self) -> bool:
        """Whether any row stands for several."""
        return any(each.times > 1 for each in self.rows)


def table_of(rows: Sequence[Row]) -> Table:
    """Rows as a table."""
    shown: list[Shown] = []
    places: dict[str, int] = {}
    start = 0
    for group in grouped([(row.site, row.what, row.detail) for row in rows]):
        size = len(group.rows)
        for index, row in enumerate(rows[start : start + size * group.times]):
            places.setdefault(row.site, len(shown) + index % size)
        for index, (site, _, detail) in enumerate(group.rows):
            kept = dataclasses.replace(rows[start + index], site=site, detail=detail)
            shown.append(Shown(kept, group.times, size if index == 0 else 0))
        start += size * group.times
    return Table(tuple(shown), places)


@dataclasses.dataclass(frozen=True)
class Figure:
    """How many calls of a kind there are, before and after."""

    kind: str
    before: int
    after: int


def figures_of(before: Network, after: Network) -> Iterator[Figure]:
    """How many calls there are of each kind whose number changes, and of all."""
    old, new = (Counter(node.type.partition(",")[0] for node in network.nodes) for network in (before, after))
    for kind in old | new:
        if old[kind] != new[kind]:
            yield Figure(kind, old[kind], new[kind])
    yield Figure("all calls", old.total(), new.total())
