"""What a person wants to know of a plan first: how many layers it is about, and what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kerasbn import _keras
from kerasbn.catalog.roles import Role, role_of
from kerasbn.facts.facts import Facts
from kerasbn.passes.proposal import Edit
from kerasbn.reasons import Reason, Skip

_NOW, _ALREADY = "normalized now", "normalized already"
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
    roles = {role_of(layer) for layer in facts.calls}
    text = _outcome(facts, "linear layers", Role.LINEAR, ways, (_NOW, _ALREADY))
    if Role.RECURRENT in roles:
        text += f" {_outcome(facts, 'recurrent layers', Role.RECURRENT, ways, (_NOW, _ALREADY))}"
    insists = Role.LINEAR in roles and not inserted
    return f"{text} A rule insists on one: rules=[('GLOB', 'before')]." if insists else text


def outcome_of_folding(facts: Facts, edits: Iterable[Edit], skips: Iterable[Skip]) -> str:
    """What becomes of the batch normalizations, in one line."""
    ways: dict[str, str | Reason] = {skip.site: skip.reason for skip in skips}
    ways |= {edit.site: "folded" for edit in edits if edit.kind == "fold"}
    return _outcome(facts, "batch normalizations", Role.BATCH_NORMALIZATION, ways, ("folded",))


def _outcome(facts: Facts, what: str, role: Role, ways: dict[str, str | Reason], good: tuple[str, ...]) -> str:
    """Count the layers of a role: those that go a good way at any of their calls, and the others by their reason."""
    counts: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for layer, sites in facts.calls.items():
        if role_of(layer) is role:
            found = [ways[site.address] for site in sites]
            way = next((way for way in good if way in found), None)
            if way is None:
                left.update(each.value for each in found[:1] if isinstance(each, Reason))
            else:
                counts[way] += 1
    parts = [f"{counts[way]} {way}" for way in good]
    if left:
        parts.append(f"{left.total()} left alone ({', '.join(f'{count} {reason}' for reason, count in left.items())})")
    total = counts.total() + left.total()
    inside = sum(role_of(each) is role for layer in facts.kept for each in _keras.sublayers(layer)[1:])
    more = (
        f" {inside} more {'is' if inside == 1 else 'are'} inside of custom layers that are kept whole."
        if inside
        else ""
    )
    return f"{total} {what.removesuffix('s') if total == 1 else what}: {', '.join(parts)}.{more}"
