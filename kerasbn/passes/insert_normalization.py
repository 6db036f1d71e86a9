"""Insert a normalization at each place; the bias of the linear layer right before it becomes its beta.

In training, BN subtracts the mean of the batch, so a bias before it would be redundant (Ioffe &
Szegedy, 2015, section 3.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from kerasbn.catalog.linear import channel_bias, linear_of
from kerasbn.graph.clone import spec_of
from kerasbn.graph.edit import Change, Insert, InsertAhead, Replace
from kerasbn.graph.model import Graph, LayerSpec, Operation
from kerasbn.options import Options
from kerasbn.passes.naming import Names
from kerasbn.passes.placement import Place, Placements
from kerasbn.passes.proposal import Edit, Proposals
from kerasbn.passes.prototype import Prototype


def insert_normalization(graph: Graph, placements: Placements, names: Names, options: Options) -> Proposals:
    """Propose a normalization for each place.

    Raises:
        OptionError: if `norm` is not a layer instance, or cannot start as the identity where
            `preserve` asks for it.
    """
    prototype = Prototype.asked_for(options)
    edits: list[Edit] = []
    for layer, places in _by_served_layer(placements.places).items():
        current = graph.by_address[places[0].serves.address].operation
        addresses = {site.address for site in graph.calls[current]}
        bias = channel_bias(layer) if _takes_bias(layer, places, addresses, prototype) else None
        changes: list[Change] = [] if bias is None else [_without_bias(current)]
        spec = None
        for place in places:
            if spec is None or options.shared == "per_call":
                name = names.fresh(f"{layer.name}_bn", beside=place.site.path)
                like = layer if isinstance(layer, keras.layers.Layer) else None
                spec = prototype.named(name, place.axis, like=like, bias=bias)
            insert = InsertAhead if place.ahead else Insert
            changes.append(insert(place.site.address, spec))
            edits.append(
                Edit(
                    site=place.site.address,
                    kind="insert",
                    detail=f"{spec.name!r} ({spec.cls.__name__}) {place.detail}"
                    + ("" if bias is None else "; the bias becomes its beta"),
                    changes=tuple(changes),
                )
            )
            changes = []
    return Proposals(tuple(edits))


def _by_served_layer(places: Iterable[Place]) -> Mapping[Any, list[Place]]:
    groups: dict[Any, list[Place]] = defaultdict(list)
    for place in places:
        groups[place.serves.operation].append(place)
    return groups


def _takes_bias(layer: Any, places: list[Place], addresses: set[str], prototype: Prototype) -> bool:
    """Whether a bias of the layer becomes beta: at every call of it a normalization follows at once."""
    return (
        linear_of(layer) is not None
        and prototype.takes_bias
        and {place.site.address for place in places if place.site.operation is layer and place.position == "before"}
        == addresses
    )


def _without_bias(operation: Operation) -> Replace:
    spec = operation if isinstance(operation, LayerSpec) else spec_of(operation)
    linear = linear_of(spec)
    assert linear is not None
    return Replace(operation, spec.with_config(**dict([linear.no_bias])))
