"""What folding asks about a graph, besides what all passes do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import cast

import keras
import numpy as np

from kerasbn.catalog.linear import has_activation
from kerasbn.catalog.normalization import is_known
from kerasbn.facts.facts import Facts
from kerasbn.graph.model import CallSite, Value
from kerasbn.passes.folding.absorb import Absorbed, absorbs, has_channel_axis, map_of
from kerasbn.passes.folding.transport.table import transport_of
from kerasbn.reasons import Reason, Refusal


class FoldingFacts:
    """What is known of a graph whose batch normalizations are to be folded.

    Attributes:
        facts: What all passes know of it.
        flow: The flow of its values.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.flow = facts.flow

    @cached_property
    def position(self) -> dict[CallSite, int]:
        """The place of each call site in the order in which they run."""
        return {site: index for index, site in enumerate(self.flow.sites)}

    @cached_property
    def takes_shift(self) -> frozenset[Value]:
        """The values to which a map with a shift can be passed backward, as far as the kinds of layers tell."""
        return frozenset(self._takers_of_shifts())

    def check_normalization(self, site: CallSite) -> None:
        """Refuse a normalization that stays, whatever is around it."""
        address = site.address
        if not is_known(site.operation):
            raise Refusal(Reason.UNKNOWN_SUBCLASS)
        if address in self.facts.trained:
            raise Refusal(Reason.TRAINING)
        calls = self.facts.calls[site.operation]
        if address in self.facts.named_outputs and len({call.address for call in calls}) > 1:
            raise Refusal(Reason.OUTPUT)
        if not has_channel_axis(site):
            raise Refusal(Reason.CHANNEL_AXIS)
        if site.inputs[0].spec.dtype != site.outputs[0].spec.dtype:
            raise Refusal(Reason.PRECISION)
        if not np.isfinite(map_of(site, Absorbed()).greatest):
            raise Refusal(Reason.NON_FINITE)

    def is_foldable(self, site: CallSite) -> bool:
        """Whether a normalization goes if what is around it lets it."""
        try:
            self.check_normalization(site)
        except Refusal:
            return False
        return True

    def _takers_of_shifts(self) -> Iterator[Value]:
        found: set[Value] = set()
        for site in self.flow.sites:
            if absorbs(site.operation):
                takes = not has_activation(cast("keras.layers.Layer", site.operation))
            else:
                transport = transport_of(site)
                able = [value in found for value in site.inputs]
                every = any if transport is not None and transport.one_takes_shift else all
                takes = transport is not None and transport.passes_shift and bool(able) and every(able)
            if takes and len(self.flow.users(site.outputs[0])) == 1:
                found.add(site.outputs[0])
        return iter(found)
