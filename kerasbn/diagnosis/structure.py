"""What the graph of a model tells of its batch normalization."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kerasbn.catalog.linear import channel_axis, channel_bias, has_activation
from kerasbn.catalog.norms import is_frozen
from kerasbn.catalog.roles import NORMALIZING, Role, keeps_axes
from kerasbn.diagnosis.kinds import Finding, Kind
from kerasbn.diagnosis.subject import Subject
from kerasbn.facts.facts import Facts
from kerasbn.graph.model import CallSite, core_of, step_axes

_UNCHANGING = frozenset({Role.IDENTITY, Role.DROPOUT})
_KEEPING_AXES = _UNCHANGING | {Role.ACTIVATION, Role.POOLING, Role.BATCH_NORMALIZATION, Role.NORMALIZATION}


def of_structure(subject: Subject) -> Iterator[Finding]:
    """What is found in the graph; nothing where there is none."""
    if subject.facts is None:
        return
    facts = subject.facts
    sites = {
        site.path: site
        for site in reversed(facts.flow.sites)
        if isinstance(core_of(site.operation), keras.layers.BatchNormalization)
    }
    some_frozen = {is_frozen(norm) for norm in subject.norms} == {True, False}
    for site in reversed(sites.values()):
        norm = core_of(site.operation)
        yield from _double(facts, site)
        yield from _axis(facts, site)
        if not is_frozen(norm):
            yield from _bias(facts, site)
        if some_frozen:
            yield from _mixed(facts, site)


def _double(facts: Facts, site: CallSite) -> Iterator[Finding]:
    ahead = _ahead(facts, site, _UNCHANGING)
    if ahead is not None and facts.flow.role(ahead) in NORMALIZING:
        yield Finding(
            site.path,
            Kind.DOUBLE,
            f"{ahead.path} has normalized already what it gets.",
            f'kerasbn.rewrite(model, position="none", dropout="none", rules=[({site.path!r}, "remove")]), then train.',
        )


def _axis(facts: Facts, site: CallSite) -> Iterator[Finding]:
    ahead = _ahead(facts, site, _KEEPING_AXES)
    if ahead is None or facts.flow.role(ahead) is not Role.LINEAR:
        return
    wanted = channel_axis(ahead.operation)
    norm = core_of(site.operation)
    rank, steps = len(site.inputs[0].shape), step_axes(site.operation)
    if wanted is None or not isinstance(norm.axis, int):
        return
    axis = norm.axis % (rank - steps) + steps
    if axis != wanted % rank:
        yield Finding(
            site.path,
            Kind.AXIS,
            f"It normalizes axis {axis} of {rank}; {ahead.path} has its channels on axis {wanted % rank}.",
            f"Build it with axis={wanted % rank - steps}, and train the model.",
        )


def _bias(facts: Facts, site: CallSite) -> Iterator[Finding]:
    ahead = facts.flow.producer(site.inputs[0])
    if ahead is None or facts.flow.role(ahead) is not Role.LINEAR or facts.flow.users(site.inputs[0]) != (site,):
        return
    if site.inputs[0] in facts.flow.outputs or has_activation(ahead.operation):
        return
    if channel_bias(ahead.operation) is not None and not any(_axis(facts, site)):
        yield Finding(
            site.path,
            Kind.BIAS,
            f"{ahead.path} has a bias, which changes nothing but the moving mean.",
            f"Build {ahead.name} with use_bias=False.",
        )


def _mixed(facts: Facts, site: CallSite) -> Iterator[Finding]:
    ahead = _ahead(facts, site, _UNCHANGING)
    if ahead is None or facts.flow.role(ahead) is not Role.LINEAR:
        return
    feeder: Any = ahead.operation
    feeder_is_frozen = not feeder.trainable_weights
    if is_frozen(core_of(site.operation)) == feeder_is_frozen:
        return
    if feeder_is_frozen:
        detail, remedy = f"It trains, behind {ahead.path}, which is frozen.", f"kerasbn.freeze(model, {site.path!r})"
    else:
        detail = f"It is frozen, behind {ahead.path}, which trains, so that its statistics fit less and less."
        remedy = "kerasbn.freeze(model), to freeze all of them, or let it train."
    yield Finding(site.path, Kind.MIXED, detail, remedy)


def _ahead(facts: Facts, site: CallSite, through: frozenset[Role]) -> CallSite | None:
    """The next call ahead that does more than some roles do; `None` where several values come together."""
    while len(site.inputs) == 1:
        found = facts.flow.producer(site.inputs[0])
        if found is None:
            return None
        role = facts.flow.role(found)
        if role not in through and not (
            role is Role.REARRANGEMENT and Role.POOLING in through and keeps_axes(found.operation)
        ):
            return found
        site = found
    return None
