"""Search a graph for the batch normalizations that can be folded, and what they are folded into."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from kerasbn.catalog.roles import Role
from kerasbn.facts.facts import Facts
from kerasbn.graph.model import Operation
from kerasbn.passes.folding.absorb import Absorbed
from kerasbn.passes.folding.attempt import Attempt, Backward, Forward
from kerasbn.passes.folding.facts import FoldingFacts
from kerasbn.passes.folding.ledger import Direction, Fold, Ledger
from kerasbn.reasons import Reason, Refusal

_GENERIC = frozenset({Reason.NONLINEAR, Reason.INPUT})
"""Reasons that say less than the one of the other direction."""


@dataclasses.dataclass(frozen=True)
class Folding:
    """The outcome of the search.

    Attributes:
        folds: The normalizations that go, by the address of their call.
        refusals: Why each of the others stays.
        absorbed: What each layer absorbed; normalizations that go absorbed nothing.
    """

    folds: Mapping[str, Fold]
    refusals: Mapping[str, Refusal]
    absorbed: Mapping[Operation, Absorbed]


def search(facts: Facts) -> Folding:
    """Fold backward what can be, then forward, until there is nothing left to fold."""
    known = FoldingFacts(facts)
    ledger = Ledger(known)
    refusals: dict[str, Refusal] = {}
    pending: dict[str, dict[Direction, Refusal]] = {}
    for address, (site, *_) in facts.occurrences.items():
        if facts.flow.role(site) is Role.BATCH_NORMALIZATION:
            try:
                known.check_normalization(site)
                pending[address] = {}
            except Refusal as refusal:
                refusals[address] = Refusal(refusal.reason, f"stays, at {address}")
    before = None
    while len(ledger.folds) != before:
        before = len(ledger.folds)
        for direction in (Backward, Forward):
            for address, stood in pending.items():
                if address not in ledger.folds and (refused := _refused(direction(known, ledger), address)):
                    stood[direction.direction] = refused
    refusals |= {address: _explained(stood) for address, stood in pending.items() if address not in ledger.folds}
    return Folding(ledger.folds, refusals, ledger.absorbed)


def _refused(attempt: Attempt, address: str) -> Refusal | None:
    try:
        attempt.fold(address)
    except Refusal as refusal:
        return refusal.with_traceback(None)
    return None


def _explained(stood: Mapping[Direction, Refusal]) -> Refusal:
    """The reason that says most, and the particulars of both directions."""
    telling = next((each for each in stood.values() if each.reason not in _GENERIC), stood["backward"])
    ways = (f"{direction}: {each.reason.value} at {each.detail}" for direction, each in stood.items())
    return Refusal(telling.reason, "; ".join(ways))
