"""Split the built-in activation off the layers that are normalized before it.

    f(W x + b)  ->  f( (W x + b) )      one layer for f, called wherever the linear layer is

The activity regularizer, which acts on the output, goes with the activation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import keras

from kerasbn.catalog import activations
from kerasbn.facts.facts import Facts
from kerasbn.graph.clone import float_policy
from kerasbn.graph.edit import Configure, Insert, behind
from kerasbn.graph.model import LayerSpec, core_of
from kerasbn.passes.naming import Names
from kerasbn.passes.placement import Place
from kerasbn.passes.proposal import Edit


def split_activation(facts: Facts, places: Sequence[Place], names: Names) -> Iterator[Edit]:
    """Propose to split the activation of each layer that has a place before it."""
    for operation in {each.site.operation: None for each in places if each.takes_over_output and _has_activation(each)}:
        layer = cast("keras.layers.Layer", operation)
        core = core_of(layer)
        addresses = list(dict.fromkeys(site.address for site in facts.calls[layer]))
        first = facts.calls[layer][0]
        name = names.fresh(f"{first.name}_activation", beside=first.path)
        activation = LayerSpec(
            keras.layers.Activation,
            {
                "name": name,
                "activation": core.activation,
                "activity_regularizer": layer.activity_regularizer,
                "trainable": layer.trainable,
                "dtype": float_policy(layer),
            },
        )
        yield Edit(
            site=addresses[0],
            kind="replace",
            detail=f"{activations.name_of_function(core.activation)} becomes the layer {name!r}",
            changes=(
                Configure(layer, {"activation": None, "activity_regularizer": None}),
                *(Insert(behind(address), activation) for address in addresses),
            ),
        )


def _has_activation(place: Place) -> bool:
    built_in = activations.name_of_function(getattr(core_of(place.site.operation), "activation", None))
    return built_in != activations.LINEAR
