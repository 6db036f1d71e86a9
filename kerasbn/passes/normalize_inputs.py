"""Normalize the model's inputs, in the place of standardising the data beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kerasbn.catalog.roles import NORMALIZING, role_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Insert, behind
from kerasbn.graph.model import CallSite, core_of
from kerasbn.options import Options
from kerasbn.passes.left_alone import check_left_alone_by, rule_for
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.passes.prototype import Prototype
from kerasbn.reasons import Reason, Refusal, Skip
from kerasbn.serializable import BatchNormalization

_EPSILON = 1e-8
"""Inputs come in units of all sizes; the usual 1e-3 would swallow those with a deviation below 0.03."""


def normalize_inputs(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose a normalization right behind each input of numbers."""
    if not options["normalize_inputs"]:
        return
    own = BatchNormalization(epsilon=_EPSILON, zero_debias=options["data"] is None, accumulate=facts.accumulation)
    prototype = Prototype.asked_for(facts, options, default=own)
    for site in facts.graph.sites:
        if site.is_input:
            try:
                axis = _channel_axis(facts, site, options)
                prototype.check(site.outputs[0], axis)
            except Refusal as refusal:
                yield refusal.at(site.address)
                continue
            spec = prototype.named(draft.names.fresh(f"{site.path}_bn", beside=site.path), axis, site.outputs[0])
            detail = f"{spec.name!r} ({spec.cls.__name__}) behind the input"
            yield Edit(site.address, "insert", detail, (Insert(behind(site.address), spec),))


def _channel_axis(facts: Facts, site: CallSite, options: Options) -> int:
    """The axis of the channels of an input: 1 where a layer takes it with the channels first, else -1.

    Raises:
        Refusal: if it is not to be normalized.
    """
    spec = site.outputs[0].spec
    users = [user.operation for user in facts.flow.users(site.outputs[0])]
    check_left_alone_by(rule_for(options, site.path))
    if not keras.backend.is_float_dtype(spec.dtype) or spec.sparse or spec.ragged:
        raise Refusal(Reason.NOT_NUMERIC, "holds no dense floating point numbers")
    if getattr(site.operation, "optional", False):
        raise Refusal(Reason.OPTIONAL, "may be left out, and then there is nothing to normalize")
    first = any(getattr(core_of(user), "data_format", None) == "channels_first" for user in users)
    axis = 1 if first else -1
    if len(spec.shape) < 2 or spec.shape[axis] is None:
        raise Refusal(Reason.CHANNEL_AXIS, "its last axis has no fixed size")
    if not users:
        raise Refusal(Reason.OUTPUT, "goes nowhere but to the outputs, as it is")
    if all(map(_normalizes, users)):
        raise Refusal(Reason.NORMALIZED, "normalized already")
    return axis


def _normalizes(operation: Any) -> bool:
    return role_of(operation) in NORMALIZING or isinstance(operation, keras.layers.Normalization)
