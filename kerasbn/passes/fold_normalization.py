"""Fold batch normalization into the linear layers next to it.

At inference BN is y = s x + t, so it can be multiplied into the weights of a linear layer ahead of
it or behind it (`kerasbn.passes.folding.absorb`), past whatever commutes with it
(`kerasbn.passes.folding.transport`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import keras

from kerasbn.catalog.norms import norms_in
from kerasbn.catalog.roles import Role, role_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.clone import identity_arguments
from kerasbn.graph.edit import Change, Remove, Replace, Substitute
from kerasbn.graph.model import CallSite, LayerSpec, Operation
from kerasbn.options import Options
from kerasbn.passes import recurrent
from kerasbn.passes.folding.ledger import Fold
from kerasbn.passes.folding.search import search
from kerasbn.passes.folding.weights import with_absorbed
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.reasons import Reason, Refusal, Skip

INFERENCE_MODEL = (
    "The result is a model for inference: what batch normalization computes there is in the weights of other layers, "
    "and nothing is left of it in training. Train the source, and fold it again."
)


def fold_normalization(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose to fold each batch normalization that can be, with the reason for each one that stays."""
    facts = facts.after(change for change in draft.changes if isinstance(change, Remove | Substitute))
    folding = search(facts)
    replaced = {
        operation: Replace(operation, with_absorbed(facts.calls[operation][0], absorbed))
        for operation, absorbed in folding.absorbed.items()
    }
    identities: dict[Operation, LayerSpec] = {}
    for address, fold in folding.folds.items():
        site = facts.graph.by_address[address]
        named = address in facts.named_outputs
        leaving = identities.setdefault(site.operation, _identity(site)) if named else None
        changes: list[Change] = [Remove(address, leaving)]
        changes += [replaced.pop(taker.operation) for taker in fold.into if taker.operation in replaced]
        yield Edit(address, "fold", _described(fold), tuple(changes))
    yield from _recurrent(facts)
    yield from (refusal.at(address) for address, refusal in folding.refusals.items())
    yield from _kept_whole(facts)


def _recurrent(facts: Facts) -> Iterator[Edit | Skip]:
    """Fold the normalizations inside recurrent layers, which all calls of one share."""
    for operation, (site, *others) in facts.graph.calls.items():
        if not recurrent.is_normalized(operation):
            continue
        layer = cast("keras.layers.Layer", operation)
        try:
            if any(call.address in facts.trained for call in (site, *others)):
                raise Refusal(Reason.TRAINING)
            if layer in facts.tied:
                raise Refusal(Reason.TIED_WEIGHTS)
            recurrent.check_foldable(layer)
        except Refusal as refusal:
            yield Refusal(refusal.reason, f"stays, in {layer.name!r}").at(site.address)
        else:
            yield Edit(site.address, "fold", "into its own weights", (Replace(operation, recurrent.folded(layer)),))


def _kept_whole(facts: Facts) -> Iterator[Skip]:
    """The reason for each layer that holds normalizations and is not looked into."""
    for operation, (site, *_) in facts.graph.calls.items():
        if role_of(operation) is Role.BATCH_NORMALIZATION or recurrent.is_normalized(operation):
            continue
        if count := len(norms_in(operation)):
            layer = cast("keras.layers.Layer", operation)
            kept = facts.kept.get(layer) or Refusal(Reason.OPAQUE, "is carried over as it is")
            detail = f"{type(layer).__name__} {kept.detail}; batch normalizations inside: {count}"
            yield Skip(site.address, kept.reason, detail)


def _identity(site: CallSite) -> LayerSpec:
    """What stays in the place of a layer by whose name an output of its model goes."""
    return LayerSpec(keras.layers.Identity, identity_arguments(cast("keras.layers.Layer", site.operation)))


def _described(fold: Fold) -> str:
    if not fold.into:
        return "changes nothing that is used"
    names = ", ".join(repr(site.path) for site in fold.into)
    return f"{fold.direction}, into {names}"
