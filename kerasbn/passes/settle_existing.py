"""Settle what becomes of normalization that is there already: it is replaced, or taken out.

In training, taking one out is no fold: the layer is gone, and the model is to be trained anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import keras

from kerasbn import _keras
from kerasbn.catalog.roles import NORMALIZING, Role, role_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.clone import identity_arguments
from kerasbn.graph.edit import Change, Remove, Replace, Substitute
from kerasbn.graph.model import CallSite, LayerSpec, core_of
from kerasbn.options import Options, changes_existing
from kerasbn.passes.left_alone import check_left_alone_by, rule_for_existing
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.passes.prototype import Prototype
from kerasbn.passes.successor import successor_of
from kerasbn.reasons import Reason, Refusal, Skip


def settle_existing(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose what becomes of each normalization, with the reason for each one that stays."""
    if not changes_existing(options):
        return
    prototype = Prototype.asked_for(facts, options) if changes_existing(options, "replace") else None
    for operation, sites in facts.graph.calls.items():
        if not isinstance(operation, keras.layers.Layer):
            continue
        try:
            if role_of(operation) in NORMALIZING:
                rule = rule_for_existing(options, *(site.path for site in sites))
                what = options["existing"] if rule is None else rule
                if options["existing"] == "keep" and what not in ("replace", "remove"):
                    continue
                check_left_alone_by(rule)
                if what == "remove":
                    yield from _removed(facts, operation, sites)
                elif what == "replace":
                    assert prototype is not None
                    _check_replaceable(facts, operation, insisted=rule is not None)
                    yield from _replaced(operation, sites, prototype, options)
            elif options["existing"] != "keep":
                _check_holds_none(facts, operation)
        except Refusal as refusal:
            yield from (refusal.at(site.address) for site in sites)


def _removed(facts: Facts, layer: keras.layers.Layer, sites: Sequence[CallSite]) -> Iterator[Edit]:
    """Take a layer out; what an output goes by the name of, or what changes the type of the numbers, leaves a trace."""
    identity = LayerSpec(keras.layers.Identity, identity_arguments(layer))
    detail = f"the {type(core_of(layer)).__name__} goes, to train without it: outputs change"
    for site in sites:
        casts = site.inputs[0].spec.dtype != site.outputs[0].spec.dtype
        leaving = identity if casts or site.address in facts.named_outputs else None
        yield Edit(site.address, "remove", detail, (Remove(site.address, leaving),), exact=False)


def _replaced(
    layer: keras.layers.Layer, sites: Sequence[CallSite], prototype: Prototype, options: Options
) -> Iterator[Edit]:
    fitted, keeps_epsilon = options["data"] is not None, options["norm"] is None
    successor = successor_of(layer, sites[0].inputs[0], prototype, fitted=fitted, keeps_epsilon=keeps_epsilon)
    changes: list[tuple[Change, ...]]
    if successor.exact:  # called as the layer is, with its mask
        changes = [(Replace(layer, successor.spec),), *(() for _ in sites[1:])]
    else:
        changes = [(Substitute(site.address, successor.spec, site.inputs[0]),) for site in sites]
    for site, each in zip(sites, changes, strict=True):
        yield Edit(site.address, "replace", successor.detail, each, exact=successor.exact)


def _check_replaceable(facts: Facts, layer: keras.layers.Layer, *, insisted: bool) -> None:
    if isinstance(core_of(layer), keras.layers.UnitNormalization) and not insisted:
        raise Refusal(Reason.UNIT_LENGTH, "makes vectors of length 1")
    if layer in facts.tied:
        raise Refusal(Reason.TIED_WEIGHTS, "shares a weight with another layer")


def _check_holds_none(facts: Facts, layer: keras.layers.Layer) -> None:
    """Refuse a layer that holds normalizations and is not looked into."""
    inside: list[Any] = [each for each in _keras.sublayers(layer)[1:] if role_of(each) in NORMALIZING]
    if not inside:
        return
    detail = f"normalizations inside: {len(inside)}"
    if role_of(layer) is Role.RECURRENT:
        raise Refusal(Reason.RECURRENT, f"what normalizes its input products stays; {detail}")
    kept = facts.kept.get(layer) or Refusal(Reason.OPAQUE, "is carried over as it is")
    raise Refusal(kept.reason, f"{type(cast('Any', layer)).__name__} {kept.detail}; {detail}")
