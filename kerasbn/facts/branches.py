"""Residual branches that are normalized: what their authors settled needs no further normalization.

The law: a branch between a value and the sum that adds it again is normalized if every way along it
goes through a normalization, whatever else stands between: at its beginning as in transformers, at
its end, or behind the convolution that mixes the locations. A branch around others that are
normalized by themselves says nothing of what it holds besides.
"""

from __future__ import annotations

from collections.abc import Set
from itertools import permutations

from kerasbn.catalog.roles import NORMALIZING, Role, adds
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, Value


def normalized_branches(flow: Flow) -> frozenset[CallSite]:
    """The linear sites on residual branches that are normalized."""
    search = _Search(flow)
    found: list[set[CallSite]] = []
    for site in flow.sites:
        if adds(site.operation):
            for start, end in permutations(dict.fromkeys(site.inputs), 2):
                branch = search.ways(start, end)
                is_normalized = branch and not search.ways(start, end, avoiding=NORMALIZING)
                if is_normalized and not any(inner <= branch for inner in found):
                    found.append(branch)
    return frozenset(site for branch in found for site in branch if flow.role(site) is Role.LINEAR)


class _Search:
    """Looks for the ways between two values."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._order = {site: index for index, site in enumerate(flow.sites)}

    def ways(self, start: Value, end: Value, *, avoiding: Set[Role] = frozenset()) -> set[CallSite]:
        """The sites on the ways from one value to another, which lead past no site of some roles."""
        leading: list[CallSite] = []
        needed = {end}
        for site in reversed(self._flow.sites[self._index(start) + 1 : self._index(end) + 1]):
            if self._flow.role(site) not in avoiding and not needed.isdisjoint(site.outputs):
                leading.append(site)
                needed.update(site.inputs)
        reached = {start}
        found: set[CallSite] = set()
        for site in reversed(leading):
            if not reached.isdisjoint(site.inputs):
                reached.update(site.outputs)
                found.add(site)
        return found if end in reached else set()

    def _index(self, value: Value) -> int:
        producer = self._flow.producer(value)
        return -1 if producer is None else self._order[producer]
