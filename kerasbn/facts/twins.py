"""Twins: calls of one layer that are two views of the same, as in siamese, triplet and contrastive networks.

The law: calls are twins if they are on values of one shape that come, by operations of one kind, from
calls of the same layers or from inputs, and none feeds another. What a network compares across twins
has to be normalized alike. Calls that follow one another, as unrolled steps do, or that see other
sizes or the values of other layers, as heads on the levels of a pyramid do, have statistics of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

import keras

from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, Value, type_of


class Twins:
    """Which calls of a layer are twins."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._origins: dict[Value, Hashable] = {}
        for site in flow.sites:
            self._origins.update((value, (self._origin(site), index)) for index, value in enumerate(site.outputs))

    def groups(self, sites: Iterable[CallSite]) -> list[list[CallSite]]:
        """The calls of one layer, twins together and each other call by itself."""
        alike: dict[Hashable, list[CallSite]] = defaultdict(list)
        for site in sites:
            alike[tuple((value.shape, self._origins.get(value)) for value in site.inputs)].append(site)
        groups = []
        for group in alike.values():
            groups += [[site] for site in group] if self._feed_one_another(group) else [group]
        return groups

    def _origin(self, site: CallSite) -> Hashable:
        """Where the values of a site come from: its layer if it has weights, else what it does, and with what."""
        if site.is_input:
            return "input"
        operation = site.operation
        if isinstance(operation, keras.layers.Layer) and operation.weights:
            return id(operation)
        return (type_of(operation), *map(self._origins.get, site.inputs))

    def _feed_one_another(self, sites: list[CallSite]) -> bool:
        """Whether what one of the sites yields goes into another, through whatever lies between."""
        wanted = {value for site in sites for value in site.inputs}
        reached = {value for site in sites for value in site.outputs}
        for site in self._flow.sites:
            if not reached.isdisjoint(site.inputs):
                reached.update(site.outputs)
        return len(sites) > 1 and not reached.isdisjoint(wanted)
