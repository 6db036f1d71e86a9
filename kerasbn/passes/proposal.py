"""What passes answer with: edits, and skips with their reasons; and what becomes of them, a draft.

A pass is a function of the facts about a graph, the options, and the draft so far. It changes
nothing: it yields edits, and a skip for each call site that it leaves as it is. Whatever stands in
the way, wherever that shows, is raised as a `Refusal`; the pass makes a skip of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Change, Insert, Remove
from kerasbn.graph.model import Graph
from kerasbn.options import Options
from kerasbn.passes.naming import Names
from kerasbn.reasons import Skip


@dataclasses.dataclass(frozen=True)
class Edit:
    """A change to one call site.

    Attributes:
        site: The address of the call site, `"encoder/conv2#0"`.
        kind: `"insert"`, `"remove"`, `"replace"`, `"fold"` or `"merge"`.
        detail: What becomes of it, for people to read.
        changes: The changes of the graph that bring it about.
        exact: Whether the model computes at inference what it did, once measured statistics or `preserve` are seen to.
    """

    site: str
    kind: Literal["insert", "remove", "replace", "fold", "merge"]
    detail: str
    changes: tuple[Change, ...] = dataclasses.field(repr=False, compare=False)
    exact: bool = dataclasses.field(default=True, repr=False)


class Draft:
    """All that was proposed so far. A pass looks here for what those ahead of it decided.

    Attributes:
        names: Hands out names for new layers.
        edits: The edits, in the order in which they were proposed.
        skips: The skips, likewise.
    """

    def __init__(self, graph: Graph) -> None:
        self.names = Names(graph)
        self.edits: list[Edit] = []
        self.skips: list[Skip] = []

    def add(self, outcomes: Iterable[Edit | Skip]) -> None:
        """Take in what a pass proposes."""
        found = tuple(outcomes)
        self.edits += (each for each in found if isinstance(each, Edit))
        self.skips += (each for each in found if isinstance(each, Skip))

    @property
    def changes(self) -> Iterator[Change]:
        """The changes of all edits."""
        return (change for edit in self.edits for change in edit.changes)

    @property
    def insertions(self) -> Iterator[Insert]:
        """What is to be inserted."""
        return (change for change in self.changes if isinstance(change, Insert))

    @property
    def removed(self) -> frozenset[str]:
        """The addresses of the call sites that go."""
        return frozenset(change.address for change in self.changes if isinstance(change, Remove))


Pass: TypeAlias = Callable[[Facts, Options, Draft], Iterable[Edit | Skip]]
