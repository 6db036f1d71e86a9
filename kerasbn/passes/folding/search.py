"""Find which batch normalizations can be folded, and into what.

A batch normalization goes if its map can be absorbed on one side. Backward, the value ahead of it
takes the map: what yields the value absorbs it, or passes it on to its own inputs, and so forth;
nobody else may use a value that changes. Forward, every user of its value takes the map.

One rule keeps layers that are called several times right, in models that are called several times
too: a layer absorbs what it is to absorb at all of its call sites alike, or not at all. So where a
layer is called elsewhere, the normalization there has to go along.

Nothing is built on the way. Folded normalizations stand in the graph as identities; what a layer
absorbed is kept as two maps.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias, cast

import keras
import numpy as np

from kerasbn.catalog.roles import Role, role_of
from kerasbn.graph.model import CallSite, Graph, Operation, Value, core_of
from kerasbn.passes.folding.absorb import (
    Absorbed,
    absorbs,
    has_activation,
    has_channel_axis,
    is_normalization,
    map_of,
    why_not_ahead,
    why_not_behind,
)
from kerasbn.passes.folding.affine import Affine, identity
from kerasbn.passes.folding.transport import transport_of
from kerasbn.passes.proposal import Reason

Direction: TypeAlias = Literal["backward", "forward"]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a normalization cannot be folded, and the call site at which that shows."""

    reason: Reason
    address: str


@dataclasses.dataclass(frozen=True)
class Fold:
    """A normalization that is folded.

    Attributes:
        direction: Where to.
        into: The call sites of the layers that absorb it; none if nobody uses its value.
    """

    direction: Direction
    into: tuple[CallSite, ...]


@dataclasses.dataclass(frozen=True)
class Folding:
    """The outcome of the search.

    Attributes:
        folds: The normalizations that go, by the address of their call.
        refusals: Why each of the others stays, by direction.
        absorbed: What each layer absorbed; normalizations that go absorbed nothing.
    """

    folds: Mapping[str, Fold]
    refusals: Mapping[str, tuple[Refusal, ...]]
    absorbed: Mapping[Operation, Absorbed]


def search(graph: Graph) -> Folding:
    """Search a graph for what can be folded."""
    return _Search(graph).run()


class _RefusedError(Exception):
    """One attempt ends."""

    def __init__(self, reason: Reason, site: CallSite) -> None:
        super().__init__(reason, site)
        self.refusal = Refusal(reason, site.address)


class _Search:
    """What was folded so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.flat()
        self.position = {site: index for index, site in enumerate(self.graph.sites)}
        self.trained = graph.trained
        self.named_outputs = frozenset(_yielding_outputs(graph))
        self.tied = frozenset(_tied(graph))
        self.calls = self.graph.calls
        self.occurrences: dict[str, list[CallSite]] = defaultdict(list)
        for site in self.graph.sites:
            self.occurrences[site.address].append(site)
        self.folds: dict[str, Fold] = {}
        self.absorbed: dict[Operation, Absorbed] = defaultdict(Absorbed)
        self.takes_shift = frozenset(self._find_takers_of_shifts())

    def run(self) -> Folding:
        """Fold backward what can be, then forward, until there is nothing left to fold."""
        refusals: dict[str, tuple[Refusal, ...]] = {}
        pending: list[str] = []
        for address, (site, *_) in self.occurrences.items():
            if role_of(site.operation) is Role.BATCH_NORMALIZATION:
                if reason := self._never(site):
                    refusals[address] = (Refusal(reason, address),)
                else:
                    pending.append(address)
        before = None
        while len(self.folds) != before:
            before = len(self.folds)
            for attempt in (_Backward, _Forward):
                for address in pending:
                    if address not in self.folds and (refusal := self._try(attempt(self), address)):
                        refusals[address] = (*refusals.get(address, ())[-1:], refusal)
        return Folding(
            folds=self.folds,
            refusals={address: both for address, both in refusals.items() if address not in self.folds},
            absorbed={operation: what for operation, what in self.absorbed.items() if self.live_calls(operation)},
        )

    def is_folded(self, site: CallSite) -> bool:
        """Whether a call site is a normalization that went."""
        return site.address in self.folds

    def live_calls(self, operation: Operation) -> list[CallSite]:
        """The call sites of an operation that are still there."""
        return [site for site in self.calls[operation] if not self.is_folded(site)]

    def _never(self, site: CallSite) -> Reason | None:
        """Why a normalization stays, whatever is around it."""
        if not is_normalization(site.operation):
            return Reason.UNKNOWN_SUBCLASS
        if site.address in self.trained:
            return Reason.TRAINING
        if site.address in self.named_outputs and len({call.address for call in self.calls[site.operation]}) > 1:
            return Reason.OUTPUT
        if not has_channel_axis(site):
            return Reason.CHANNEL_AXIS
        if site.inputs[0].spec.dtype != site.outputs[0].spec.dtype:
            return Reason.PRECISION
        if not np.isfinite(map_of(site, Absorbed()).greatest):
            return Reason.NON_FINITE
        return None

    def _try(self, attempt: _Attempt, address: str) -> Refusal | None:
        try:
            attempt.fold(address)
        except _RefusedError as refused:
            return refused.refusal
        return None

    def _find_takers_of_shifts(self) -> Iterator[Value]:
        """The values to which a map with a shift can be passed backward, as far as the kinds of layers tell."""
        found: set[Value] = set()
        for site in self.graph.sites:
            if absorbs(site.operation):
                takes = not has_activation(cast("keras.layers.Layer", site.operation))
            else:
                transport = transport_of(site)
                able = [value in found for value in site.inputs]
                every = any if transport is not None and transport.one_takes_shift else all
                takes = transport is not None and transport.passes_shift and bool(able) and every(able)
            if takes and len(self.graph.consumers[site.outputs[0]]) == 1:
                found.add(site.outputs[0])
        return iter(found)


class _Attempt:
    """One try to fold a normalization. The search changes if it succeeds."""

    direction: Direction

    def __init__(self, search: _Search) -> None:
        self.search = search
        self.graph = search.graph
        self.going: dict[str, None] = {}
        self.maps: dict[Value, Affine] = {}
        self.takers: dict[CallSite, Affine] = {}
        self.queue: list[tuple[int, CallSite]] = []
        self.dtype = ""

    def fold(self, address: str) -> None:
        """Fold a normalization, with all that have to go along.

        Raises:
            _RefusedError: if that cannot be done.
        """
        self.dtype = self.search.occurrences[address][0].outputs[0].spec.dtype
        self._let_go(address)
        while (companion := self._companion()) is not None:
            self._let_go(companion)
        first: dict[Operation, CallSite] = {}
        for site, affine in self.takers.items():
            agreed = self.takers[first.setdefault(site.operation, site)]
            if site.address in self.going or not affine.equals(agreed):
                raise _RefusedError(Reason.SHARED_LAYER, site)
        for operation, site in first.items():
            self.search.absorbed[operation] = self._with_map(self.search.absorbed[operation], self.takers[site])
        self.search.folds.update(dict.fromkeys(self.going, Fold(self.direction, tuple(first.values()))))

    def _let_go(self, address: str) -> None:
        """Take all calls at an address out, and their maps to whatever absorbs them."""
        self.going[address] = None
        for site in self.search.occurrences[address]:
            self._visit(site)
        while self.queue:
            _, site = heapq.heappop(self.queue)
            if site in self.takers:
                continue
            if site.address in self.going:
                self._take_along(site, map_of(site, self.search.absorbed[site.operation]))
            elif self.search.is_folded(site):
                self._take_along(site, identity(0))
            elif site.address in self.search.trained and role_of(site.operation) in (Role.DROPOUT, Role.IDENTITY):
                raise _RefusedError(Reason.MONTE_CARLO, site)
            elif absorbs(site.operation):
                self._absorb(site)
            else:
                self._pass(site)

    def _absorb(self, site: CallSite) -> None:
        layer = cast("keras.layers.Layer", site.operation)
        affine = self._map_at(site)
        if layer in self.search.tied:
            raise _RefusedError(Reason.TIED_WEIGHTS, site)
        core = core_of(layer)
        if core.compute_dtype != self.dtype or core.variable_dtype not in ("float32", "float64"):
            raise _RefusedError(Reason.PRECISION, site)  # weights of fewer bits would be rounded a second time
        if is_normalization(layer) and self.search._never(site):
            raise _RefusedError(Reason.NONLINEAR, site)
        if reason := self._why_not(site, affine):
            raise _RefusedError(reason, site)
        if not affine.greatest <= np.finfo(layer.variable_dtype).max:
            raise _RefusedError(Reason.NON_FINITE, site)
        self.takers[site] = affine

    def _companion(self) -> str | None:
        """The address of a normalization that has to go along, since a layer that absorbs is called there too."""
        for operation in {site.operation: None for site in self.takers}:
            for site in self.search.live_calls(operation):
                if site not in self.takers and site.address not in self.going:
                    found = self._normalization_next_to(site)
                    if found is None or found.address in self.going or self.search._never(found):
                        raise _RefusedError(Reason.SHARED_LAYER, site)
                    return found.address
        return None

    def _give(self, value: Value, affine: Affine, site: CallSite) -> bool:
        """Give a value a map; whether that is news."""
        if affine.is_identity:
            return False
        if value in self.graph.output_values:
            raise _RefusedError(Reason.OUTPUT, site)
        if value.spec.dtype != self.dtype:
            raise _RefusedError(Reason.PRECISION, site)
        if value in self.maps:
            if self.maps[value].equals(affine):
                return False
            raise _RefusedError(Reason.OTHER_CONSUMERS, site)
        self.maps[value] = affine
        return True

    # What differs between the directions

    _why_not: Callable[[CallSite, Affine], Reason | None]

    def _visit(self, site: CallSite) -> None:
        """Queue a site, to be visited behind all those that its maps depend on."""
        raise NotImplementedError

    def _take_along(self, site: CallSite, affine: Affine) -> None:
        """Take the map of a normalization that goes to its far side, with the map that has come up to it."""
        raise NotImplementedError

    def _map_at(self, site: CallSite) -> Affine:
        """The map that a site absorbs, which is of its input or its output."""
        raise NotImplementedError

    def _pass(self, site: CallSite) -> None:
        """Take the map of a site's value to its far side."""
        raise NotImplementedError

    def _with_map(self, absorbed: Absorbed, affine: Affine) -> Absorbed:
        """What a layer has absorbed with one map more."""
        raise NotImplementedError

    def _normalization_next_to(self, site: CallSite) -> CallSite | None:
        """The next normalization, if nothing but a chain of sites lies between."""
        raise NotImplementedError


class _Backward(_Attempt):
    """The value ahead of the normalization takes its map: y = A(x), and x becomes A(x)."""

    direction = "backward"
    _why_not = staticmethod(why_not_behind)

    def _visit(self, site: CallSite) -> None:
        heapq.heappush(self.queue, (-self.search.position[site], site))

    def _take_along(self, site: CallSite, affine: Affine) -> None:
        behind = self.maps.get(site.outputs[0]) or identity(0)
        self._demand(site.inputs[0], behind.after(affine), site)

    def _demand(self, value: Value, affine: Affine, by: CallSite) -> None:
        if affine.is_identity:
            return
        if others := [user for user in self.graph.consumers[value] if user is not by]:
            raise _RefusedError(Reason.OTHER_CONSUMERS, others[0])
        producer = self.graph.producers.get(value)
        if producer is None:
            raise _RefusedError(Reason.INPUT, by)
        if self._give(value, affine, by):
            self._visit(producer)

    def _map_at(self, site: CallSite) -> Affine:
        return self.maps[site.outputs[0]]

    def _pass(self, site: CallSite) -> None:
        transport = transport_of(site)
        if transport is None:
            raise _RefusedError(Reason.NONLINEAR, site)
        maps = transport.backward(site, self.maps[site.outputs[0]])
        if isinstance(maps, Reason):
            raise _RefusedError(maps, site)
        if transport.one_takes_shift:
            able = next((index for index, value in enumerate(site.inputs) if value in self.search.takes_shift), 0)
            maps = (*maps[1 : able + 1], maps[0], *maps[able + 1 :])
        for value, affine in zip(site.inputs, maps, strict=True):
            self._demand(value, affine, site)

    def _with_map(self, absorbed: Absorbed, affine: Affine) -> Absorbed:
        return absorbed.with_behind(affine)

    def _normalization_next_to(self, site: CallSite) -> CallSite | None:
        while len(users := self.graph.consumers[site.outputs[0]]) == 1:
            (site,) = users
            if is_normalization(site.operation) and not self.search.is_folded(site):
                return site
        return None


class _Forward(_Attempt):
    """Every user of the normalization's value takes its map: y = A(x), and the users get x."""

    direction = "forward"
    _why_not = staticmethod(why_not_ahead)

    def _visit(self, site: CallSite) -> None:
        heapq.heappush(self.queue, (self.search.position[site], site))

    def _take_along(self, site: CallSite, affine: Affine) -> None:
        self._hand_on(site.outputs[0], affine.after(self._map_at(site)), site)

    def _hand_on(self, value: Value, affine: Affine, by: CallSite) -> None:
        if self._give(value, affine, by):
            for user in self.graph.consumers[value]:
                self._visit(user)

    def _maps_of_inputs(self, site: CallSite) -> tuple[Affine, ...]:
        return tuple(self.maps.get(value) or identity(len(value.shape) - 1) for value in site.inputs)

    def _map_at(self, site: CallSite) -> Affine:
        first, *others = self._maps_of_inputs(site)
        if any(not affine.is_identity for affine in others):
            raise _RefusedError(Reason.NONLINEAR, site)
        return first

    def _pass(self, site: CallSite) -> None:
        transport = transport_of(site)
        if transport is None:
            raise _RefusedError(Reason.NONLINEAR, site)
        affine = transport.forward(site, self._maps_of_inputs(site))
        if isinstance(affine, Reason):
            raise _RefusedError(affine, site)
        self._hand_on(site.outputs[0], affine, site)

    def _with_map(self, absorbed: Absorbed, affine: Affine) -> Absorbed:
        return absorbed.with_ahead(affine)

    def _normalization_next_to(self, site: CallSite) -> CallSite | None:
        while (producer := self.graph.producers.get(site.inputs[0]) if site.inputs else None) is not None:
            if is_normalization(producer.operation) and not self.search.is_folded(producer):
                return producer
            site = producer
        return None


def _graphs(graph: Graph) -> Iterable[Graph]:
    """A graph and those inside it."""
    return {graph: None, **{site.operation: None for site in graph.walk() if isinstance(site.operation, Graph)}}


def _yielding_outputs(graph: Graph) -> Iterator[str]:
    """The addresses of the calls that yield an output of their own model, which goes by their name."""
    for each in _graphs(graph):
        yield from (site.address for site in each.sites if not each.output_values.isdisjoint(site.outputs))


def _tied(graph: Graph) -> Iterator[keras.layers.Layer]:
    """The layers that share a weight with another one."""
    owners: dict[int, keras.layers.Layer] = {}
    for _, layer in graph.layers():
        for variable in layer.variables:
            owner = owners.setdefault(id(variable), layer)
            if owner is not layer:
                yield from (owner, layer)
