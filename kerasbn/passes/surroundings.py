"""What lies around the linear layers of a graph: found by sweeping over it once, whatever its size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Set

import keras

from kerasbn.catalog.roles import KEEPING, NORMALIZING, PER_CHANNEL, Role, role_of
from kerasbn.graph.model import CallSite, Graph, Value, type_of


class Surroundings:
    """The facts about a graph that decide where batch normalization goes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._roles: Mapping[CallSite, Role] = {site: role_of(site.operation) for site in graph.sites}
        self._becomes_output = self._find_outputs()
        self._normalized_behind = self._find_normalized_behind()
        self._normalized_ahead = self._coming_from({Role.NORMALIZATION}, through=KEEPING)
        self._normalized_before_last = self._find_normalized_before_last()
        self._from_normalization = self._coming_from(NORMALIZING, through=PER_CHANNEL)
        self.gates = frozenset(self._find_gates())
        self.tied = frozenset(self._find_tied())
        self._trunk = self._find_trunk()
        self.pre_activations = frozenset(self._find_pre_activations())

    def role(self, site: CallSite) -> Role:
        """The role of the operation that is called."""
        return self._roles[site]

    def is_head(self, site: CallSite) -> bool:
        """Whether the site's value is a model output, or becomes one through activations and reshaping."""
        return any(value in self._becomes_output for value in site.outputs)

    def is_normalized(self, site: CallSite) -> bool:
        """Whether a normalization acts on the site's block: behind it or, as in transformers, ahead of it."""
        return (
            not self._normalized_behind.isdisjoint(site.outputs)
            or not self._normalized_ahead.isdisjoint(site.inputs)
            or (not self._normalized_before_last.isdisjoint(site.inputs) and self._ends_branch(site))
        )

    def comes_from_normalization(self, site: CallSite) -> bool:
        """Whether a site acts on what a normalization yields, perhaps pooled or rearranged."""
        return any(value in self._from_normalization for value in site.inputs)

    def joins_trunk(self, site: CallSite) -> bool:
        """Whether a site's value goes nowhere but into the sums of a pre-activation network."""
        behind = self.next_sites(site)
        return bool(behind) and all(user in self._trunk for user in behind)

    def next_sites(self, site: CallSite) -> tuple[CallSite, ...]:
        """The first sites behind a site that do more than pool or rearrange its values."""
        found: dict[CallSite, None] = {}
        queue = deque(site.outputs)
        while queue:
            for user in self.graph.consumers[queue.popleft()]:
                if self.role(user) in PER_CHANNEL:
                    queue.extend(user.outputs)
                else:
                    found[user] = None
        return tuple(found)

    def _find_outputs(self) -> set[Value]:
        found = set(self.graph.output_values)
        for site in reversed(self.graph.sites):
            if self.role(site) in KEEPING | {Role.ACTIVATION} and not found.isdisjoint(site.outputs):
                found.update(site.inputs)
        return found

    def _find_normalized_behind(self) -> set[Value]:
        """Values that reach a normalization: past pooling and merging, then past one activation at most."""
        directly: set[Value] = set()
        found: set[Value] = set()
        for site in reversed(self.graph.sites):
            role = self.role(site)
            normalizing = role in NORMALIZING
            reaches_directly = not directly.isdisjoint(site.outputs)
            if normalizing or (role in PER_CHANNEL and reaches_directly):
                directly.update(site.inputs)
            if (
                normalizing
                or (role in PER_CHANNEL | {Role.MERGE} and not found.isdisjoint(site.outputs))
                or (role is Role.ACTIVATION and reaches_directly)
            ):
                found.update(site.inputs)
        return found

    def _coming_from(self, sources: Set[Role], *, through: Set[Role]) -> set[Value]:
        found: set[Value] = set()
        for site in self.graph.sites:
            role = self.role(site)
            if role in sources or (role in through and not found.isdisjoint(site.inputs)):
                found.update(site.outputs)
        return found

    def _find_trunk(self) -> set[CallSite]:
        """The merging sites of pre-activation networks (He et al., 2016; DenseNet).

        There, what a sum or a concatenation yields goes on to the next one as it is, and through an
        activation into the layers of the next block, never into a layer without. In the networks
        that activate behind the sum, the next sum takes the activated value.
        """
        trunk: set[CallSite] = set()
        for connected in self._connected_merges():
            behind = {site: [self.role(user) for user in self.next_sites(site)] for site in connected}
            if (
                any(Role.ACTIVATION in roles and Role.MERGE in roles for roles in behind.values())
                and not any(Role.LINEAR in roles for roles in behind.values())
                and len({type_of(site.operation) for site in connected}) == 1
            ):
                trunk |= connected
        return trunk

    def _find_normalized_before_last(self) -> set[Value]:
        """Values one linear layer and its activation behind a normalization of each example, as inside transformers."""
        found: set[Value] = set()
        for site in self.graph.sites:
            role = self.role(site)
            if (role is Role.LINEAR and not self._normalized_ahead.isdisjoint(site.inputs)) or (
                role in KEEPING | {Role.ACTIVATION} and not found.isdisjoint(site.inputs)
            ):
                found.update(site.outputs)
        return found

    def _ends_branch(self, site: CallSite) -> bool:
        """Whether a site's value goes into a sum, scaled by a layer of its own perhaps, without an activation."""
        behind = self.next_sites(site)
        while len(behind) == 1 and self.role(behind[0]) is Role.OTHER and len(behind[0].inputs) == 1:
            behind = self.next_sites(behind[0])
        return bool(behind) and all(self.role(user) is Role.MERGE for user in behind)

    def _connected_merges(self) -> list[set[CallSite]]:
        """The merging sites, grouped by which feed one another without anything but pooling in between."""
        groups: dict[CallSite, set[CallSite]] = {}
        for site in self.graph.sites:
            if self.role(site) is Role.MERGE:
                group = groups.setdefault(site, {site})
                for user in self.next_sites(site):
                    if self.role(user) is Role.MERGE:
                        group |= groups.get(user, {user})
                        groups.update(dict.fromkeys(group, group))
        return list({id(group): group for group in groups.values()}.values())

    def _find_pre_activations(self) -> Iterator[CallSite]:
        for site in self._trunk:
            yield from (user for user in self.next_sites(site) if self.role(user) is Role.ACTIVATION)

    def _find_gates(self) -> Iterator[CallSite]:
        """The linear sites between a global pooling and the product that its outcome scales."""
        for site in self.graph.sites:
            if self.role(site) is Role.PRODUCT and len(site.inputs) > 1:
                for value in site.inputs:
                    yield from self._gate_behind(value)

    def _gate_behind(self, value: Value) -> list[CallSite]:
        linear: list[CallSite] = []
        site = self.graph.producers.get(value)
        while site is not None and len(site.inputs) == 1:
            role = self.role(site)
            if role is Role.GLOBAL_POOLING:
                return linear
            if role is Role.LINEAR:
                linear.append(site)
            elif role not in KEEPING | {Role.ACTIVATION, Role.MERGE, Role.PRODUCT}:
                break
            site = self.graph.producers.get(site.inputs[0])
        return []

    def _find_tied(self) -> Iterator[keras.layers.Layer]:
        owners: dict[int, keras.layers.Layer] = {}
        for _, layer in self.graph.layers():
            for variable in layer.weights:
                owner = owners.setdefault(id(variable), layer)
                if owner is not layer:
                    yield from (owner, layer)
