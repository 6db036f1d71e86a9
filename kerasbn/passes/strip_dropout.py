"""Remove the Dropout that batch normalization makes redundant or harmful.

Dropout ahead of a batch normalization shifts the variance between training and inference (Li et
al., 2018: DenseNet on CIFAR-100 falls from 77.42 to 68.55 with 0.5 in every bottleneck); behind
the last one it is harmless. Ioffe & Szegedy (2015, section 4.2.1) leave it out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import keras

from kerasbn.catalog.roles import KEEPING, NORMALIZING, OPAQUE, Role, activation_name, role_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Configure, Remove, Replace
from kerasbn.graph.model import CallSite, Graph, Operation, Value, core_of
from kerasbn.options import Options
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.passes.recurrent import dropout_of, is_normalized, without_dropout
from kerasbn.reasons import Reason, Refusal, Skip

_PASSING = KEEPING | {Role.LINEAR, Role.ACTIVATION, Role.POOLING, Role.GLOBAL_POOLING, Role.MERGE}
_SOFTMAX = ("softmax", "log_softmax", "sparsemax")


def strip_dropout(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose to remove each call of Dropout that goes, with the reason for each one that stays."""
    if options["fold"] and options["dropout"] == "none":
        return  # nothing was asked of it
    stripper = _Stripper(facts, options, draft)
    yield from stripper.layers()
    yield from stripper.arguments()


class _Stripper:
    """The Dropout of one graph, and where its values go."""

    def __init__(self, facts: Facts, options: Options, draft: Draft) -> None:
        self._facts = facts
        self._flow = facts.flow
        self._dropout = options["dropout"]
        self._removed = draft.removed
        self._normalized = _normalized_recurrent(facts, draft)
        self._next = _next_normalizations(facts, draft, self._normalized)
        self._from_inputs = _values_as_they_came_in(facts)
        self._why = "feeds a batch normalization" if self._dropout == "redundant" else 'dropout="all"'

    def layers(self) -> Iterator[Edit | Skip]:
        """What becomes of each call of a Dropout layer."""
        found: dict[str, Edit | Skip] = {}
        for site in self._flow.sites:
            if self._flow.role(site) is Role.DROPOUT and not isinstance(found.get(site.address), Skip):
                found[site.address] = self._outcome(site)
        for inside in {site.operation for site in self._facts.graph.walk() if isinstance(site.operation, Graph)}:
            left = (site for site in inside.sites if not site.is_input and site.address not in self._removed)
            addresses = [site.address for site in left]
            if addresses and all(address in found for address in addresses):
                only = Refusal(Reason.ONLY_LAYER, f"the model {inside.name!r} holds nothing else")
                found[addresses[0]] = only.at(addresses[0])
        yield from found.values()

    def arguments(self) -> Iterator[Edit | Skip]:
        """What becomes of the Dropout that is an argument of a recurrent layer."""
        for layer, sites in self._facts.calls.items():
            if role_of(layer) is Role.RECURRENT and (rates := dropout_of(layer)):
                address = sites[0].address
                try:
                    self._check_asked_for(sites)
                except Refusal as refusal:
                    yield refusal.at(address)
                    continue
                going = rates if self._dropout == "all" else rates & self._ahead_of_normalization(layer)
                if going:
                    detail = f"{' and '.join(sorted(going))} set to 0: {self._why}"
                    yield Edit(address, "replace", detail, (Configure(layer, without_dropout(layer, going)),))
                if staying := rates - going:
                    detail = f'{" and ".join(sorted(staying))} within the layer; goes only with dropout="all"'
                    yield Refusal(Reason.RECURRENT_DROPOUT, detail).at(address)

    def _ahead_of_normalization(self, layer: Operation) -> set[str]:
        """The arguments by which a recurrent layer drops what it normalizes next."""
        return {"dropout"} if layer in self._normalized else set()

    def _outcome(self, site: CallSite) -> Edit | Skip:
        try:
            self._check_goes(site)
        except Refusal as refusal:
            return refusal.at(site.address)
        return Edit(site.address, "remove", self._why, (Remove(site.address),))

    def _check_goes(self, site: CallSite) -> None:
        """Refuse to take out what stays."""
        layer: Any = core_of(site.operation)
        self._check_asked_for([site])
        if type(layer) is keras.layers.AlphaDropout:
            raise Refusal(Reason.SELF_NORMALIZING, "AlphaDropout keeps mean and variance by itself")
        if self._inside_attention(site):
            raise Refusal(Reason.ATTENTION, "between the weights of an attention and what they multiply")
        if site.outputs[0] in self._flow.outputs:
            raise Refusal(Reason.OUTPUT, "yields an output of the model")
        if self._dropout == "all":
            return
        if _drops_whole_examples(layer):
            raise Refusal(Reason.STOCHASTIC_DEPTH, "drops whole branches, example by example")
        if type(layer) is keras.layers.GaussianNoise and site.inputs[0] in self._from_inputs:
            raise Refusal(Reason.AUGMENTATION, "noise on the inputs")
        found = self._next[site.outputs[0]]
        if others := found - {Role.BATCH_NORMALIZATION}:
            raise Refusal(Reason.NO_NORMALIZATION_BEHIND, f"next behind it is {_listed(others)}")
        if not found:
            raise Refusal(Reason.NO_NORMALIZATION_BEHIND, "no batch normalization behind it")

    def _check_asked_for(self, sites: Sequence[CallSite]) -> None:
        if self._dropout == "none":
            raise Refusal(Reason.KEPT, 'dropout="none"')
        if any(site.address in self._facts.trained for site in sites):
            raise Refusal(Reason.MONTE_CARLO, "called with training=True")

    def _inside_attention(self, site: CallSite) -> bool:
        producer = self._flow.producer(site.inputs[0])
        users = self._flow.users(site.outputs[0])
        weights = producer is not None and self._flow.role(producer) is Role.ACTIVATION and _is_softmax(producer)
        return weights and any(self._flow.role(user) is Role.ATTENTION for user in users)


def _next_normalizations(
    facts: Facts, draft: Draft, normalized: Collection[Operation]
) -> Mapping[Value, frozenset[Role]]:
    """What each value meets next, on all its ways, that would undo a change of its scale, or not pass it on as it is.

    That is a normalization, there or to be inserted, also that of a recurrent layer's input products, an attention or a
    layer that is not looked into; linear layers, activations, pooling and sums lie between.
    """
    flow = facts.flow
    inserted = dict(_inserted(facts, draft))
    met: dict[Value, frozenset[Role]] = {}

    def at(user: CallSite, value: Value) -> frozenset[Role]:
        role = flow.role(user)
        if (user.address, value) in inserted:
            return frozenset({inserted[user.address, value]})
        if user.operation in normalized and value is user.inputs[0]:
            return frozenset({Role.BATCH_NORMALIZATION})
        if role in NORMALIZING or role is Role.ATTENTION or (role in OPAQUE and _has_weights(user.operation)):
            return frozenset({role})
        return frozenset().union(*(met[output] for output in user.outputs)) if role in _PASSING else frozenset()

    for site in reversed(flow.sites):
        for value in site.outputs:
            if (site.address, None) in inserted:
                met[value] = frozenset({inserted[site.address, None]})
            else:
                met[value] = frozenset().union(*(at(user, value) for user in flow.users(value)))
    return met


def _normalized_recurrent(facts: Facts, draft: Draft) -> frozenset[Operation]:
    """The recurrent layers whose input products are normalized, or going to be."""
    replaced = {change.operation for change in draft.changes if isinstance(change, Replace)}
    recurrent = (layer for layer in facts.calls if role_of(layer) is Role.RECURRENT)
    return frozenset(layer for layer in recurrent if layer in replaced or is_normalized(layer))


def _inserted(facts: Facts, draft: Draft) -> Iterator[tuple[tuple[str, Value | None], Role]]:
    """The role of each layer to be inserted, behind a site or ahead of it on a value."""
    for insertion in draft.insertions:
        edge, role = insertion.edge, role_of(insertion.layer)
        for site in facts.occurrences[edge.address]:
            if role in NORMALIZING:
                yield (edge.address, None if edge.input is None else site.inputs[edge.input]), role


def _has_weights(operation: Operation) -> bool:
    return isinstance(operation, keras.layers.Layer) and bool(operation.weights)


def _listed(roles: Iterable[Role]) -> str:
    names = {
        Role.NORMALIZATION: "a normalization of each example",
        Role.ATTENTION: "an attention",
        Role.RECURRENT: "a recurrent layer",
        Role.OTHER: "a layer that is not looked into",
    }
    return " and ".join(sorted(names[role] for role in roles))


def _drops_whole_examples(layer: Any) -> bool:
    """Whether one random number decides for all values of an example: stochastic depth (Huang et al., 2016)."""
    shape = getattr(layer, "noise_shape", None)
    return shape is not None and all(size == 1 for size in shape[1:])


def _is_softmax(site: CallSite) -> bool:
    return activation_name(cast("keras.Operation", site.operation)) in _SOFTMAX


def _values_as_they_came_in(facts: Facts) -> set[Value]:
    """The model's inputs, rearranged perhaps."""
    return facts.flow.behind({Role.INPUT}, through=KEEPING)
