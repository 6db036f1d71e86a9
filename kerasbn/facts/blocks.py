"""Blocks that are normalized already: a normalization behind them, or ahead of them as in transformers."""

from __future__ import annotations

from functools import cached_property

from kerasbn.catalog.roles import KEEPING, NORMALIZING, PER_CHANNEL, Role
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, Value


class Blocks:
    """Which blocks of a network a normalization acts on."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def is_normalized(self, site: CallSite) -> bool:
        """Whether a normalization acts on the site's block: behind it or, as in transformers, ahead of it."""
        return (
            not self._normalized_behind.isdisjoint(site.outputs)
            or not self._normalized_ahead.isdisjoint(site.inputs)
            or (not self._normalized_before_last.isdisjoint(site.inputs) and self._ends_branch(site))
        )

    def comes_from_normalization(self, site: CallSite) -> bool:
        """Whether a site acts on what a normalization yields, perhaps pooled or rearranged."""
        return not self._from_normalization.isdisjoint(site.inputs)

    @cached_property
    def _from_normalization(self) -> set[Value]:
        return self._flow.behind(NORMALIZING, through=PER_CHANNEL)

    @cached_property
    def _normalized_ahead(self) -> set[Value]:
        return self._flow.behind({Role.NORMALIZATION}, through=KEEPING)

    @cached_property
    def _normalized_behind(self) -> set[Value]:
        """Values that reach a normalization: past pooling and merging, then past one activation at most."""
        directly: set[Value] = set()
        found: set[Value] = set()
        for site in reversed(self._flow.sites):
            role = self._flow.role(site)
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

    @cached_property
    def _normalized_before_last(self) -> set[Value]:
        """Values one linear layer and its activation behind a normalization of each example, as inside transformers."""
        found: set[Value] = set()
        for site in self._flow.sites:
            role = self._flow.role(site)
            if (role is Role.LINEAR and not self._normalized_ahead.isdisjoint(site.inputs)) or (
                role in KEEPING | {Role.ACTIVATION} and not found.isdisjoint(site.inputs)
            ):
                found.update(site.outputs)
        return found

    def _ends_branch(self, site: CallSite) -> bool:
        """Whether a site's value goes into a sum, scaled by a layer of its own perhaps, without an activation."""
        behind = self._flow.next_sites(site)
        while len(behind) == 1 and self._flow.role(behind[0]) is Role.OTHER and len(behind[0].inputs) == 1:
            behind = self._flow.next_sites(behind[0])
        return bool(behind) and all(self._flow.role(user) is Role.MERGE for user in behind)
