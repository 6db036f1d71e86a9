"""Remove the Dropout that batch normalization makes redundant or harmful.

Dropout ahead of a batch normalization shifts the variance between training and inference (Li et
al., 2018: DenseNet on CIFAR-100 falls from 77.42 to 68.55 with 0.5 in every bottleneck); behind
the last one it is harmless. Ioffe & Szegedy (2015, section 4.2.1) leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kerasbn.catalog.roles import KEEPING, Role, activation_name, role_of
from kerasbn.graph.clone import spec_of
from kerasbn.graph.edit import Remove, Replace
from kerasbn.graph.model import CallSite, Graph, LayerSpec, Operation, Value, core_of
from kerasbn.options import Options
from kerasbn.passes.proposal import Edit, Proposals, Reason, Skip

_SOFTMAX = ("softmax", "log_softmax", "sparsemax")


def strip_dropout(graph: Graph, options: Options) -> Proposals:
    """Propose to remove each call of Dropout that goes, with the reason for each one that stays."""
    stripper = _Stripper(graph, options)
    return Proposals.of((*stripper.layers(), *stripper.arguments()))


class _Stripper:
    """The Dropout of one graph, and where its values go."""

    def __init__(self, graph: Graph, options: Options) -> None:
        self._graph = graph
        self._flat = graph.flat()
        self._options = options
        self._feeding = _values_that_feed_batch_normalization(self._flat)
        self._from_inputs = _values_as_they_came_in(self._flat)
        self._why = "feeds a batch normalization" if options.dropout == "redundant" else 'dropout="all"'

    def layers(self) -> Iterator[Edit | Skip]:
        """What becomes of each call of a Dropout layer."""
        found: dict[str, tuple[Reason, str] | None] = {}  # why it stays, None if it goes
        for site in self._flat.sites:
            if role_of(site.operation) is Role.DROPOUT:
                found[site.address] = found.get(site.address) or self._reason_to_keep(site)
        for inside in {site.operation for site in self._graph.walk() if isinstance(site.operation, Graph)}:
            if all(site.address in found for site in inside.sites):
                found[inside.sites[0].address] = Reason.ONLY_LAYER, f"the model {inside.name!r} holds nothing else"
        for address, reason in found.items():
            if reason is None:
                yield Edit(address, "remove", self._why, (Remove(address),))
            else:
                yield Skip(address, *reason)

    def arguments(self) -> Iterator[Edit | Skip]:
        """What becomes of the Dropout that is an argument of a recurrent layer."""
        for operation, sites in self._flat.calls.items():
            rates = _rates(operation)
            if not rates:
                continue
            address = sites[0].address
            feeds = all(not self._feeding.isdisjoint(site.outputs) for site in sites)
            if self._options.dropout == "none":
                yield Skip(address, Reason.KEPT, 'dropout="none"')
            elif any(site.address in self._graph.trained for site in sites):
                yield Skip(address, Reason.MONTE_CARLO, "called with training=True")
            elif self._options.dropout == "all" or ("dropout" in rates and feeds):
                going = rates if self._options.dropout == "all" else {"dropout"}
                spec = operation if isinstance(operation, LayerSpec) else spec_of(operation)
                changed = spec.with_config(**dict.fromkeys(going, 0.0))
                detail = f"{' and '.join(sorted(going))} set to 0: {self._why}"
                yield Edit(address, "replace", detail, (Replace(operation, changed),))
            elif "dropout" in rates:
                yield Skip(address, Reason.NO_NORMALIZATION_BEHIND, "no batch normalization behind its dropout")
            else:
                yield Skip(address, Reason.RECURRENT_DROPOUT, 'recurrent_dropout goes only with dropout="all"')

    def _reason_to_keep(self, site: CallSite) -> tuple[Reason, str] | None:
        kind = type(core_of(site.operation))
        if self._options.dropout == "none":
            return Reason.KEPT, 'dropout="none"'
        if site.address in self._graph.trained:
            return Reason.MONTE_CARLO, "called with training=True"
        if kind is keras.layers.AlphaDropout:
            return Reason.SELF_NORMALIZING, "AlphaDropout keeps mean and variance by itself"
        if self._inside_attention(site):
            return Reason.ATTENTION, "between the weights of an attention and what they multiply"
        if site.outputs[0] in self._flat.output_values:
            return Reason.OUTPUT, "yields an output of the model"
        if self._options.dropout == "all":
            return None
        if _drops_whole_examples(core_of(site.operation)):
            return Reason.STOCHASTIC_DEPTH, "drops whole branches, example by example"
        if kind is keras.layers.GaussianNoise and site.inputs[0] in self._from_inputs:
            return Reason.AUGMENTATION, "noise on the inputs"
        if site.outputs[0] not in self._feeding:
            return Reason.NO_NORMALIZATION_BEHIND, "no batch normalization behind it"
        return None

    def _inside_attention(self, site: CallSite) -> bool:
        producer = self._flat.producers.get(site.inputs[0])
        weights = producer is not None and _is_softmax(producer.operation)
        users = self._flat.consumers[site.outputs[0]]
        return weights and any(role_of(user.operation) is Role.ATTENTION for user in users)


def _rates(operation: Operation) -> set[str]:
    """The arguments of a recurrent layer by which it drops values, if it has any above 0."""
    layer: Any = operation.origin if isinstance(operation, LayerSpec) else operation
    layer = layer.forward_layer if isinstance(layer, keras.layers.Bidirectional) else layer
    if not isinstance(layer, keras.layers.RNN):
        return set()
    return {name for name in ("dropout", "recurrent_dropout") if (getattr(layer, name, 0) or 0) > 0}


def _drops_whole_examples(layer: Any) -> bool:
    """Whether one random number decides for all values of an example: stochastic depth (Huang et al., 2016)."""
    shape = getattr(layer, "noise_shape", None)
    return shape is not None and all(size == 1 for size in shape[1:])


def _is_softmax(operation: Operation) -> bool:
    return (
        role_of(operation) is Role.ACTIVATION
        and not isinstance(operation, LayerSpec | Graph)
        and activation_name(operation) in _SOFTMAX
    )


def _values_that_feed_batch_normalization(graph: Graph) -> set[Value]:
    found: set[Value] = set()
    for site in reversed(graph.sites):
        if role_of(site.operation) is Role.BATCH_NORMALIZATION or not found.isdisjoint(site.outputs):
            found.update(site.inputs)
    return found


def _values_as_they_came_in(graph: Graph) -> set[Value]:
    """The model's inputs, rearranged perhaps."""
    found: set[Value] = set(keras.tree.flatten(graph.inputs))
    for site in graph.sites:
        if role_of(site.operation) in KEEPING and found.issuperset(site.inputs):
            found.update(site.outputs)
    return found
