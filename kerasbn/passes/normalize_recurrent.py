"""Normalize the input products of recurrent layers, over the batch and all steps (Amodei et al., 2015).

    h_t = f(B(W x_t) + U h_{t-1} + b)

Initial states and the recurrent kernel are never touched; the bias stays where it is, in the place of
B's beta.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import keras

from kerasbn.catalog.roles import Role, role_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.clone import make
from kerasbn.graph.edit import Replace
from kerasbn.graph.model import CallSite, LayerSpec
from kerasbn.options import Options
from kerasbn.passes.left_alone import check_learns, check_left_alone_by, rule_for
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.passes.prototype import Prototype
from kerasbn.passes.recurrent import check_normalizable, is_normalized, normalized
from kerasbn.reasons import Reason, Refusal, Skip

_HIGH = 3
"""How many recurrent layers have to be one upon another for "auto" to normalize them."""


def normalize_recurrent(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose to normalize recurrent layers, with the reason for each one that is left alone."""
    calls = {layer: sites for layer, sites in facts.calls.items() if role_of(layer) is Role.RECURRENT}
    if not calls:
        return  # a norm of the user's own is tried on numbers
    prototype = Prototype.asked_for(facts, options)
    for operation, sites in calls.items():
        layer = cast("keras.layers.Layer", operation)
        addresses = list(dict.fromkeys(site.address for site in sites))
        try:
            _check(facts, options, sites)
            spec = _normalized(layer, sites[0], prototype)
        except Refusal as refusal:
            yield from (refusal.at(address) for address in addresses)
            continue
        detail = f"{type(prototype.layer).__name__} of its input products, over batch and steps"
        detail += "; one for all of its calls" if len(addresses) > 1 else ""
        for number, address in enumerate(addresses):
            yield Edit(address, "insert", detail, (Replace(layer, spec),) if number == 0 else ())


def _check(facts: Facts, options: Options, sites: Sequence[CallSite]) -> None:
    """Refuse a layer that is left alone.

    Raises:
        Refusal: if it is.
    """
    layer = cast("keras.layers.Layer", sites[0].operation)
    rule = rule_for(options, *(site.path for site in sites))
    check_left_alone_by(rule)
    if is_normalized(layer):
        raise Refusal(Reason.NORMALIZED, "its input products are normalized already")
    check_normalizable(layer)
    if rule == "after":
        raise Refusal(Reason.NO_ACTIVATION, "its activation is inside of it, so that there is no after")
    if rule is not None:
        return
    if options["recurrent"] == "none":
        raise Refusal(Reason.RECURRENT, 'recurrent="none"')
    for site in sites:
        check_learns(facts, site)
    if options["recurrent"] == "auto":
        _check_helps(facts, options, sites)


def _check_helps(facts: Facts, options: Options, sites: Sequence[CallSite]) -> None:
    """Refuse what gains little (docs/reproduce/speech.md), and what nothing was asked for.

    Raises:
        Refusal: if it does.
    """
    remedy = 'recurrent="sequence_wise" normalizes it'
    if options["position"] == "none":
        raise Refusal(Reason.POSITION, f'position="none"; {remedy}')
    if type(options["norm"]) is keras.layers.BatchNormalization:
        raise Refusal(Reason.NORM, f"a norm of Keras's is for files that load without kerasbn; {remedy}")
    height = min(facts.heights[site] for site in sites)
    if height < _HIGH:
        upon = "no other" if height == 1 else f"{height} in all"
        raise Refusal(Reason.RECURRENT, f"gains little in so low a stack ({upon}); {remedy}")


def _normalized(layer: keras.layers.Layer, site: CallSite, prototype: Prototype) -> LayerSpec:
    """The layer with a normalization like the prototype inside.

    Raises:
        Refusal: if the prototype is none that can be there.
    """
    norm = make(prototype.named("norm", -1, site.inputs[0], like=layer))
    if not isinstance(norm, keras.layers.BatchNormalization):
        raise Refusal(Reason.NORM, f"{type(norm).__name__} is no batch normalization, which alone goes in there")
    return normalized(layer, norm, preserve=prototype.preserve and prototype.known)
