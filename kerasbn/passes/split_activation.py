"""Split the built-in activation off the layers that are normalized before it.

    f(W x + b)  ->  f( (W x + b) )      one layer for f, called wherever the linear layer is

The activity regularizer, which acts on the output, goes with the activation.
"""

from __future__ import annotations

from typing import cast

import keras

from kerasbn.catalog import activations
from kerasbn.graph.clone import float_policy, spec_of
from kerasbn.graph.edit import Insert, Replace
from kerasbn.graph.model import Graph, LayerSpec, core_of
from kerasbn.passes.naming import Names
from kerasbn.passes.placement import Place, Placements
from kerasbn.passes.proposal import Edit, Proposals


def split_activation(graph: Graph, placements: Placements, names: Names) -> Proposals:
    """Propose to split the activation of each layer that has a place before it."""
    edits: list[Edit] = []
    first = {
        place.site.operation: place.site
        for place in reversed(placements.places)
        if place.position == "before"
        and place.site is place.serves
        and not place.ahead
        and _built_in(place) != activations.LINEAR
    }
    for operation, site in reversed(first.items()):
        layer = cast("keras.layers.Layer", operation)
        core = core_of(layer)
        addresses = [call.address for call in graph.calls[layer]]
        name = names.fresh(f"{layer.name}_activation", beside=site.path)
        bare = spec_of(layer, activation=None, activity_regularizer=None)
        activation = LayerSpec(
            keras.layers.Activation,
            {
                "name": name,
                "activation": core.activation,
                "activity_regularizer": core.activity_regularizer,
                "trainable": layer.trainable,
                "dtype": float_policy(layer),
            },
        )
        edits.append(
            Edit(
                site=addresses[0],
                kind="replace",
                detail=f"{activations.name_of_function(core.activation)} becomes the layer {name!r}",
                changes=(Replace(layer, bare), *(Insert(address, activation) for address in addresses)),
            )
        )
    return Proposals(tuple(edits))


def _built_in(place: Place) -> str:
    return activations.name_of_function(getattr(core_of(place.site.operation), "activation", None))
