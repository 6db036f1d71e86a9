"""One attempt to fold a batch normalization, backward or forward.

A batch normalization goes if its map can be absorbed on one side. Backward, the value ahead of it
takes the map: what yields the value absorbs it, or passes it on to its own inputs, and so forth;
nobody else may use a value that changes. Forward, every user of its value takes the map.

One rule keeps layers that are called several times right, in models that are called several times
too: a layer absorbs what it is to absorb at all of its call sites alike, or not at all. So where a
layer is called elsewhere, the normalization there has to go along.
"""

from __future__ import annotations

import heapq
from typing import cast

import keras
import numpy as np

from kerasbn.catalog.normalization import is_known
from kerasbn.catalog.roles import Role
from kerasbn.graph.model import CallSite, Operation, Value, core_of
from kerasbn.passes.folding.absorb import Absorbed, absorbs, check_ahead, check_behind, map_of
from kerasbn.passes.folding.affine import Affine, identity
from kerasbn.passes.folding.facts import FoldingFacts
from kerasbn.passes.folding.ledger import Direction, Fold, Ledger
from kerasbn.passes.folding.transport.table import transport_of
from kerasbn.passes.folding.transport.transport import Transport, rank_of
from kerasbn.reasons import Reason, Refusal


class Attempt:
    """One attempt. If it succeeds it is entered in the ledger, else nothing is.

    The detail of a `Refusal` is the address of the call site at which it shows.
    """

    direction: Direction

    def __init__(self, known: FoldingFacts, ledger: Ledger) -> None:
        self._known = known
        self._flow = known.flow
        self._ledger = ledger
        self._going: dict[str, None] = {}
        self._maps: dict[Value, Affine] = {}
        self._takers: dict[CallSite, Affine] = {}
        self._queue: list[tuple[int, CallSite]] = []
        self._dtype = ""

    def fold(self, address: str) -> None:
        """Fold a normalization, with all that have to go along.

        Raises:
            Refusal: if that cannot be done.
        """
        self._dtype = self._known.facts.occurrences[address][0].outputs[0].spec.dtype
        self._let_go(address)
        while (companion := self._companion()) is not None:
            self._let_go(companion)
        first: dict[Operation, CallSite] = {}
        for site, affine in self._takers.items():
            agreed = self._takers[first.setdefault(site.operation, site)]
            if site.address in self._going or not affine.equals(agreed):
                raise Refusal(Reason.SHARED_LAYER, site.address)
        absorbed = {
            operation: self._with_map(self._ledger.absorbed_by(operation), self._takers[site])
            for operation, site in first.items()
        }
        self._ledger.enter(self._going, Fold(self.direction, tuple(first.values())), absorbed)

    def _let_go(self, address: str) -> None:
        """Take all calls at an address out, and their maps to whatever absorbs them."""
        self._going[address] = None
        for site in self._known.facts.occurrences[address]:
            self._visit(site)
        while self._queue:
            _, site = heapq.heappop(self._queue)
            try:
                self._settle(site)
            except Refusal as refusal:
                raise Refusal(refusal.reason, refusal.detail or site.address) from None

    def _settle(self, site: CallSite) -> None:
        """Take the map that has come to a site on, or let the site absorb it."""
        if site in self._takers:
            return
        if site.address in self._going:
            self._take_along(site, map_of(site, self._ledger.absorbed_by(site.operation)))
        elif self._ledger.is_gone(site):
            self._take_along(site, identity(0))
        elif site.address in self._known.facts.trained and self._flow.role(site) in (Role.DROPOUT, Role.IDENTITY):
            raise Refusal(Reason.MONTE_CARLO)
        elif absorbs(site.operation):
            self._absorb(site)
        elif (transport := transport_of(site)) is not None:
            self._pass(site, transport)
        else:
            raise Refusal(Reason.NONLINEAR)

    def _absorb(self, site: CallSite) -> None:
        layer = cast("keras.layers.Layer", site.operation)
        affine = self._map_at(site)
        if layer in self._known.facts.tied:
            raise Refusal(Reason.TIED_WEIGHTS)
        core = core_of(layer)
        if core.compute_dtype != self._dtype or core.variable_dtype not in ("float32", "float64"):
            raise Refusal(Reason.PRECISION)  # weights of fewer bits would be rounded a second time
        if is_known(layer) and not self._known.is_foldable(site):
            raise Refusal(Reason.NONLINEAR)
        self._check(site, affine)
        if not affine.greatest <= np.finfo(layer.variable_dtype).max:
            raise Refusal(Reason.NON_FINITE)
        self._takers[site] = affine

    def _companion(self) -> str | None:
        """The address of a normalization that has to go along, since a layer that absorbs is called there too."""
        for operation in {site.operation: None for site in self._takers}:
            for site in self._ledger.calls_left(operation):
                if site not in self._takers and site.address not in self._going:
                    found = self._normalization_next_to(site)
                    if found is None or found.address in self._going or not self._known.is_foldable(found):
                        raise Refusal(Reason.SHARED_LAYER, site.address)
                    return found.address
        return None

    def _give(self, value: Value, affine: Affine) -> bool:
        """Give a value a map; whether that is news."""
        if affine.is_identity:
            return False
        if value in self._flow.outputs:
            raise Refusal(Reason.OUTPUT)
        if value.spec.dtype != self._dtype:
            raise Refusal(Reason.PRECISION)
        if value in self._maps:
            if self._maps[value].equals(affine):
                return False
            raise Refusal(Reason.OTHER_CONSUMERS)
        self._maps[value] = affine
        return True

    # What differs between the directions

    def _visit(self, site: CallSite) -> None:
        """Queue a site, to be visited behind all those that its maps depend on."""
        raise NotImplementedError

    def _take_along(self, site: CallSite, affine: Affine) -> None:
        """Take the map of a normalization that goes to its far side, with the map that has come up to it."""
        raise NotImplementedError

    def _map_at(self, site: CallSite) -> Affine:
        """The map that a site absorbs, which is of its input or its output."""
        raise NotImplementedError

    def _check(self, site: CallSite, affine: Affine) -> None:
        """Refuse a map that a site cannot absorb."""
        raise NotImplementedError

    def _pass(self, site: CallSite, transport: Transport) -> None:
        """Take the map of a site's value to its far side."""
        raise NotImplementedError

    def _with_map(self, absorbed: Absorbed, affine: Affine) -> Absorbed:
        """What a layer has absorbed with one map more."""
        raise NotImplementedError

    def _normalization_next_to(self, site: CallSite) -> CallSite | None:
        """The next normalization, if nothing but a chain of sites lies between."""
        raise NotImplementedError


class Backward(Attempt):
    """The value ahead of the normalization takes its map: y = A(x), and x becomes A(x)."""

    direction = "backward"

    def _visit(self, site: CallSite) -> None:
        heapq.heappush(self._queue, (-self._known.position[site], site))

    def _take_along(self, site: CallSite, affine: Affine) -> None:
        behind = self._maps.get(site.outputs[0]) or identity(0)
        self._demand(site.inputs[0], behind.after(affine), site)

    def _demand(self, value: Value, affine: Affine, by: CallSite) -> None:
        if affine.is_identity:
            return
        if others := [user for user in self._flow.users(value) if user is not by]:
            raise Refusal(Reason.OTHER_CONSUMERS, others[0].address)
        producer = self._flow.producer(value)
        if producer is None or producer.is_input:
            raise Refusal(Reason.INPUT)
        if self._give(value, affine):
            self._visit(producer)

    def _map_at(self, site: CallSite) -> Affine:
        return self._maps[site.outputs[0]]

    def _check(self, site: CallSite, affine: Affine) -> None:
        check_behind(site, affine)

    def _pass(self, site: CallSite, transport: Transport) -> None:
        maps = transport.backward(site, self._maps[site.outputs[0]])
        if transport.one_takes_shift:
            able = next((index for index, value in enumerate(site.inputs) if value in self._known.takes_shift), 0)
            maps = (*maps[1 : able + 1], maps[0], *maps[able + 1 :])
        for value, affine in zip(site.inputs, maps, strict=True):
            self._demand(value, affine, site)

    def _with_map(self, absorbed: Absorbed, affine: Affine) -> Absorbed:
        return absorbed.with_behind(affine)

    def _normalization_next_to(self, site: CallSite) -> CallSite | None:
        while len(users := self._flow.users(site.outputs[0])) == 1:
            (site,) = users
            if is_known(site.operation) and not self._ledger.is_gone(site):
                return site
        return None


class Forward(Attempt):
    """Every user of the normalization's value takes its map: y = A(x), and the users get x."""

    direction = "forward"

    def _visit(self, site: CallSite) -> None:
        heapq.heappush(self._queue, (self._known.position[site], site))

    def _take_along(self, site: CallSite, affine: Affine) -> None:
        self._hand_on(site.outputs[0], affine.after(self._map_at(site)))

    def _hand_on(self, value: Value, affine: Affine) -> None:
        if self._give(value, affine):
            for user in self._flow.users(value):
                self._visit(user)

    def _maps_of_inputs(self, site: CallSite) -> tuple[Affine, ...]:
        return tuple(self._maps.get(value) or identity(rank_of(value)) for value in site.inputs)

    def _map_at(self, site: CallSite) -> Affine:
        first, *others = self._maps_of_inputs(site)
        if any(not affine.is_identity for affine in others):
            raise Refusal(Reason.NONLINEAR)
        return first

    def _check(self, site: CallSite, affine: Affine) -> None:
        check_ahead(site, affine)

    def _pass(self, site: CallSite, transport: Transport) -> None:
        self._hand_on(site.outputs[0], transport.forward(site, self._maps_of_inputs(site)))

    def _with_map(self, absorbed: Absorbed, affine: Affine) -> Absorbed:
        return absorbed.with_ahead(affine)

    def _normalization_next_to(self, site: CallSite) -> CallSite | None:
        while (producer := self._flow.producer(site.inputs[0]) if site.inputs else None) is not None:
            if is_known(producer.operation) and not self._ledger.is_gone(producer):
                return producer
            site = producer
        return None
