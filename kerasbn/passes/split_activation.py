"""Split the built-in activation off the layers that are normalized before it.

    f(W x + b)  ->  f( (W x + b) )      one layer for f, called wherever the linear layer is

The activity regularizer, which acts on the output, goes with the activation.
"""

from __future__ import annotations

from typing import cast

import keras

from kerasbn.catalog import activations
from kerasbn.graph.clone import spec_of
from kerasbn.graph.edit import Insert, Replace
from kerasbn.graph.model import Graph, LayerSpec
from kerasbn.passes.naming import Names
from kerasbn.passes.placement import Placements
from kerasbn.passes.proposal import Edit, Proposals


def split_activation(graph: Graph, placements: Placements, names: Names) -> Proposals:
    """Propose to split the activation of each layer that has a place before it."""
    edits: list[Edit] = []
    layers = dict.fromkeys(
        place.site.operation
        for place in placements.places
        if place.position == "before" and _built_in(place.site.operation) != activations.LINEAR
    )
    for operation in layers:
        layer = cast("keras.layers.Layer", operation)
        sites = graph.calls[layer]
        name = names.fresh(f"{layer.name}_activation")
        bare = spec_of(layer, activation=None, activity_regularizer=None)
        activation = LayerSpec(
            keras.layers.Activation,
            {
                "name": name,
                "activation": layer.activation,
                "activity_regularizer": layer.activity_regularizer,
                "trainable": layer.trainable,
                "dtype": layer.dtype_policy,
            },
        )
        edits.append(
            Edit(
                site=sites[0].address,
                kind="replace",
                detail=f"{_built_in(layer)} becomes the layer {name!r}",
                changes=(Replace(layer, bare), *(Insert(site.address, activation) for site in sites)),
            )
        )
    return Proposals(tuple(edits))


def _built_in(operation: object) -> str:
    return activations.name_of_function(getattr(operation, "activation", None))
