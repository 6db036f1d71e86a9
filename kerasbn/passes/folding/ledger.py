"""What was decided on the way: which normalizations go, and what the layers absorb that take them in."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

from kerasbn.graph.model import CallSite, Operation
from kerasbn.passes.folding.absorb import Absorbed
from kerasbn.passes.folding.facts import FoldingFacts

Direction: TypeAlias = Literal["backward", "forward"]


@dataclasses.dataclass(frozen=True)
class Fold:
    """A normalization that is folded.

    Attributes:
        direction: Where to.
        into: The call sites of the layers that absorb it; none if nobody uses its value.
    """

    direction: Direction
    into: tuple[CallSite, ...]


class Ledger:
    """The folds so far. Nothing is built: what goes stands in the graph as an identity.

    Attributes:
        folds: The normalizations that go, by the address of their call.
    """

    def __init__(self, known: FoldingFacts) -> None:
        self.folds: dict[str, Fold] = {}
        self._calls = known.facts.calls
        self._absorbed: dict[Operation, Absorbed] = {}

    def is_gone(self, site: CallSite) -> bool:
        """Whether a call site is a normalization that is folded."""
        return site.address in self.folds

    def calls_left(self, operation: Operation) -> list[CallSite]:
        """The call sites of an operation that stay."""
        return [site for site in self._calls[operation] if not self.is_gone(site)]

    def absorbed_by(self, operation: Operation) -> Absorbed:
        """What a layer has absorbed so far."""
        return self._absorbed.get(operation, Absorbed())

    def enter(self, going: Collection[str], fold: Fold, absorbed: Mapping[Operation, Absorbed]) -> None:
        """Enter a fold of the normalizations at some addresses, with what layers have absorbed by then."""
        self.folds.update(dict.fromkeys(going, fold))
        self._absorbed.update(absorbed)

    @property
    def absorbed(self) -> Mapping[Operation, Absorbed]:
        """What each layer that stays absorbs."""
        return {operation: what for operation, what in self._absorbed.items() if self.calls_left(operation)}
