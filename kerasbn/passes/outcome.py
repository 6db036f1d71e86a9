"""What a person wants to know of a plan first: how many layers it is about, and what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from kerasbn import _keras
from kerasbn.catalog.norms import norms_in
from kerasbn.catalog.roles import Role, role_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.model import Operation
from kerasbn.passes.proposal import Edit
from kerasbn.reasons import Reason, Skip

_NOW, _ALREADY = "normalized now", "normalized already"
_NORMALIZED = (Role.LINEAR, Role.RECURRENT)
_WAYS = {None: _NOW, Reason.COVERED: _NOW, Reason.NORMALIZED: _ALREADY}


def outcome_of_inserting(facts: Facts, edits: Iterable[Edit], skips: Iterable[Skip]) -> str:
    """What becomes of the linear and the recurrent layers, in one line."""
    reasons: dict[str, Reason | None] = {}
    for skip in skips:
        reasons.setdefault(skip.site, skip.reason)  # further ones are of other passes
    inserted = {edit.site for edit in edits if edit.kind == "insert"}
    reasons |= dict.fromkeys(inserted)
    ways: dict[str, str | Reason] = {}
    for address in facts.occurrences:
        reason = reasons.get(address)
        ways[address] = _WAYS[reason] if reason is None or reason in _WAYS else reason
    linear, recurrent = ({each: 1 for each in facts.calls if role_of(each) is role} for role in _NORMALIZED)
    inside = sum(role_of(each) is Role.LINEAR for layer in facts.kept for each in _keras.sublayers(layer)[1:])
    text = _outcome(facts, "linear layers", linear, inside, ways, (_NOW, _ALREADY))
    if recurrent:
        text += f" {_outcome(facts, 'recurrent layers', recurrent, 0, ways, (_NOW, _ALREADY))}"
    if not linear or inserted or Reason.POSITION in ways.values():
        return text
    return f"{text} A rule insists on one: rules=[('GLOB', 'before')]."


def outcome_of_folding(facts: Facts, edits: Iterable[Edit], skips: Iterable[Skip]) -> str:
    """What becomes of the batch normalizations, in one line."""
    ways: dict[str, str | Reason] = {skip.site: skip.reason for skip in skips}
    ways |= {edit.site: "folded" for edit in edits if edit.kind == "fold"}
    return _outcome(
        facts,
        "batch normalizations",
        {layer: count for layer in facts.calls if layer not in facts.kept and (count := len(norms_in(layer)))},
        sum(len(norms_in(layer)) for layer in facts.kept),
        ways,
        ("folded",),
    )


def _outcome(
    facts: Facts,
    what: str,
    found: Mapping[Operation, int],
    inside: int,
    ways: Mapping[str, str | Reason],
    good: tuple[str, ...],
) -> str:
    """Count layers of a kind: those that go a good way at any of their calls, and the others by their reason.

    Args:
        facts: The facts about the graph.
        what: The kind.
        found: What is one of them, or holds some, with how many that are.
        inside: How many are inside of custom layers that are kept whole.
        ways: What becomes of call sites, by their address.
        good: The ways that are good, the best one first.
    """
    counts: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for operation, count in found.items():
        taken = [ways[site.address] for site in facts.calls[operation] if site.address in ways]
        if way := next((way for way in good if way in taken), None):
            counts[way] += count
        elif isinstance(reason := taken[0], Reason):
            left[reason.value] += count
    parts = [f"{counts[way]} {way}" for way in good]
    if left:
        parts.append(f"{left.total()} left alone ({', '.join(f'{count} {reason}' for reason, count in left.items())})")
    total = counts.total() + left.total()
    more = (
        f" {inside} more {'is' if inside == 1 else 'are'} inside of custom layers that are kept whole."
        if inside
        else ""
    )
    return f"{total} {what.removesuffix('s') if total == 1 else what}: {', '.join(parts)}.{more}"
