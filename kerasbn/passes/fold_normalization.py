"""Fold batch normalization into the linear layers next to it.

At inference BN is y = s x + t, so it can be multiplied into the weights of a linear layer before or
behind it (`kerasbn.passes.folding.absorb`), past whatever commutes with it
(`kerasbn.passes.folding.transport`).
"""

from __future__ import annotations

from typing import cast

import keras

from kerasbn.graph.edit import Change, Remove, Replace
from kerasbn.graph.model import CallSite, Graph, LayerSpec, Operation
from kerasbn.passes.folding.absorb import with_absorbed
from kerasbn.passes.folding.search import Fold, Folding, Refusal, search
from kerasbn.passes.proposal import Edit, Proposals, Reason, Skip

INFERENCE_MODEL = (
    "The result is a model for inference: what batch normalization computes there is in the weights of other layers, "
    "and nothing is left of it in training. Train the source, and fold it again."
)

_GENERIC = frozenset({Reason.NONLINEAR, Reason.INPUT})
"""Reasons that say less than the one of the other direction."""


def fold_normalization(graph: Graph) -> Proposals:
    """Propose to fold each batch normalization that can be, with the reason for each one that stays."""
    folding = search(graph)
    replaced = _replaced_layers(graph, folding)
    identities: dict[Operation, LayerSpec] = {}
    edits: list[Edit] = []
    for address, fold in folding.folds.items():
        site = graph.by_address[address]
        leaving = identities.setdefault(site.operation, _identity(site)) if _yields_output(site, graph) else None
        changes: list[Change] = [Remove(address, leaving)]
        changes += [replaced.pop(taker.operation) for taker in fold.into if taker.operation in replaced]
        edits.append(Edit(address, "fold", _described(fold), tuple(changes)))
    skips = tuple(Skip(address, *_explained(refusals)) for address, refusals in folding.refusals.items())
    return Proposals(tuple(edits), skips)


def _replaced_layers(graph: Graph, folding: Folding) -> dict[Operation, Change]:
    """For each layer that absorbed something, its replacement."""
    return {
        operation: Replace(operation, with_absorbed(graph.calls[operation][0], absorbed))
        for operation, absorbed in folding.absorbed.items()
    }


def _yields_output(site: CallSite, graph: Graph) -> bool:
    """Whether an output of the site's own model goes by its name, which is to stay."""
    inside = [each.operation for each in graph.walk() if isinstance(each.operation, Graph)]
    return any(not each.output_values.isdisjoint(site.outputs) for each in (graph, *inside))


def _identity(site: CallSite) -> LayerSpec:
    layer = cast("keras.layers.Layer", site.operation)
    # Identity has no get_config of its own: Keras saves what it was made with, if that is plain.
    arguments = {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy.name}
    return LayerSpec(keras.layers.Identity, arguments)


def _described(fold: Fold) -> str:
    if not fold.into:
        return "changes nothing that is used"
    names = ", ".join(repr(site.path) for site in fold.into)
    return f"{fold.direction}, into {names}"


def _explained(refusals: tuple[Refusal, ...]) -> tuple[Reason, str]:
    """The reason that says most, and the particulars of both directions."""
    telling = next((refusal for refusal in refusals if refusal.reason not in _GENERIC), refusals[0])
    if len(refusals) == 1:
        return telling.reason, f"stays, at {telling.address}"
    directions = zip(("backward", "forward"), refusals, strict=True)
    return telling.reason, "; ".join(f"{way}: {each.reason.value} at {each.address}" for way, each in directions)
