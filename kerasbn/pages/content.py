"""What a page shows, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

Kind = Literal["insert", "remove", "replace", "fold", "merge", "skip"]

WORDS: Mapping[Kind, str] = {
    "insert": "inserted",
    "remove": "removed",
    "replace": "replaced",
    "fold": "folded",
    "merge": "merged",
    "skip": "left alone",
}
"""What is said of a node, by what becomes of it; what changes it most comes first."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """What becomes of a node.

    Attributes:
        kind: In a word.
        text: Why, or into what.
    """

    kind: Kind
    text: str


@dataclasses.dataclass(frozen=True)
class Node:
    """One call in a network.

    Attributes:
        name: What is called, `"encoder/conv2#0"`.
        type: Its kind, `"Conv2D, relu"`.
        shape: The shape of what it yields, `"56 x 56 x 64"`.
        scale: What of that is the same in blocks that are alike, `"56 x 56"`.
        site: The call that its marks belong to in the rows of a change.
        marks: What becomes of it.
        is_output: Whether the network yields its value.
    """

    name: str
    type: str
    shape: str = ""
    scale: str = ""
    site: str = ""
    marks: tuple[Mark, ...] = ()
    is_output: bool = False

    @property
    def mark(self) -> Mark | None:
        """The mark that changes it most."""
        return min(self.marks, key=lambda mark: list(WORDS).index(mark.kind), default=None)


@dataclasses.dataclass(frozen=True)
class Network:
    """Calls and what flows between them.

    Attributes:
        nodes: The calls, each behind those that it gets values from.
        edges: Who gets a value from whom, as pairs of places in `nodes`.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """What becomes of one call.

    Attributes:
        site: The call.
        kind: What becomes of it.
        reason: The word for why it is left alone, if it is.
        detail: The particulars.
    """

    site: str
    kind: Kind
    reason: str
    detail: str

    @property
    def what(self) -> str:
        """What becomes of it and the word for why, `"skip: output"`."""
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done to a network, and why.

    Attributes:
        heading: What this is about.
        outcome: What comes of it, in a line.
        rows: What becomes of its calls, in their order.
        reasons: What the words of the rows mean.
        notes: What else to know.
        before: The network.
        after: What becomes of it; the same one where nothing changes.
    """

    template: ClassVar[str] = "change.html"

    heading: str
    outcome: str
    rows: tuple[Row, ...]
    reasons: Mapping[str, str]
    notes: tuple[str, ...]
    before: Network
    after: Network


@dataclasses.dataclass(frozen=True)
class Files:
    """What was written.

    Attributes:
        heading: What this is about.
        outputs: What is to be told of each file, as `ExportReport.to_dict` has it.
        reasons: What the words for what was kept mean.
    """

    template: ClassVar[str] = "files.html"

    heading: str
    outputs: Sequence[Mapping[str, Any]]
    reasons: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Curve:
    """Losses by learning rates.

    Attributes:
        heading: What this is about.
        rates: The learning rates, from low to high.
        losses: The loss at each.
        trend: Their trend.
        suggestion: The rate to take.
    """

    template: ClassVar[str] = "curve.html"

    heading: str
    rates: Sequence[float]
    losses: Sequence[float]
    trend: Sequence[float]
    suggestion: float


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was found in a model.

    Attributes:
        heading: What this is about.
        findings: What there is to say of each finding: its `site`, `kind`, `detail` and `remedy`.
        meanings: What the words for the kinds mean.
        notes: What else to know.
    """

    template: ClassVar[str] = "findings.html"

    heading: str
    findings: Sequence[Mapping[str, Any]]
    meanings: Mapping[str, str]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Scores:
    """How candidates did.

    Attributes:
        heading: What this is about.
        headings: What stands above the columns.
        rows: As many cells for each candidate, its name first.
        notes: What else to know.
    """

    template: ClassVar[str] = "scores.html"

    heading: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


Section: TypeAlias = Change | Files | Curve | Findings | Scores


@dataclasses.dataclass(frozen=True)
class Part:
    """What belongs together on a page, such as all that was done to one model.

    Attributes:
        heading: What it is about; a page of one part does without.
        lines: What to know first.
        sections: What there is of it.
    """

    heading: str
    lines: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: Its title.
        parts: What there is on it.
        versions: The versions of the packages that made what it shows.
    """

    title: str
    parts: tuple[Part, ...]
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
