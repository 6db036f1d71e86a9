"""Insert a normalization at each place; the bias of the linear layer right ahead of it becomes its beta.

In training, BN subtracts the mean of the batch, so a bias before it would be redundant (Ioffe &
Szegedy, 2015, section 3.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from kerasbn.catalog.linear import channel_bias, linear_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Change, Configure, Insert
from kerasbn.options import Options
from kerasbn.passes.placement import Place, place
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.passes.prototype import Prototype
from kerasbn.passes.split_activation import split_activation
from kerasbn.reasons import Skip


def insert_normalization(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose a normalization for each place, and to split the activations off that it stands before.

    Raises:
        OptionError: if a rule matches nothing, or `norm` is not a layer instance, or cannot start as
            the identity where `preserve` asks for it.
    """
    placements = place(facts, options)
    prototype = Prototype.asked_for(options)
    yield from placements.skips
    yield from split_activation(facts, placements.places, draft.names)
    for layer, places in _by_served_layer(placements.places).items():
        calls = {site.address for site in facts.calls[layer]}
        bias = channel_bias(layer) if _takes_bias(layer, places, calls, prototype) else None
        changes: list[Change] = [] if bias is None else [_without_bias(layer)]
        spec = None
        for each in places:
            if spec is None or options["shared"] == "per_call":
                name = draft.names.fresh(f"{each.serves.name}_bn", beside=each.site.path)
                like = layer if isinstance(layer, keras.layers.Layer) else None
                spec = prototype.named(name, each.axis, like=like, bias=bias)
            yield Edit(
                site=each.site.address,
                kind="insert",
                detail=f"{spec.name!r} ({spec.cls.__name__}) {each.detail}"
                + ("" if bias is None else "; the bias becomes its beta"),
                changes=(*changes, Insert(each.edge, spec)),
            )
            changes = []


def _by_served_layer(places: Iterable[Place]) -> Mapping[Any, list[Place]]:
    groups: dict[Any, list[Place]] = defaultdict(list)
    for each in places:
        groups[each.serves.operation].append(each)
    return groups


def _takes_bias(layer: Any, places: list[Place], calls: set[str], prototype: Prototype) -> bool:
    """Whether a bias of the layer becomes beta: at every call of it a normalization follows at once."""
    return (
        linear_of(layer) is not None
        and prototype.takes_bias
        and {each.site.address for each in places if each.takes_over_output} == calls
    )


def _without_bias(layer: Any) -> Configure:
    linear = linear_of(layer)
    assert linear is not None
    return Configure(layer, dict([linear.no_bias]))
