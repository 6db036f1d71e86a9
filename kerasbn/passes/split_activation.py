"""Split the built-in activation off the layers that are normalized before it.

    f(W x + b)  ->  f( (W x + b) )      one layer for f, called wherever the linear layer is

The activity regularizer, which acts on the output, goes with the activation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, cast

import keras

from kerasbn.catalog import activations
from kerasbn.facts.facts import Facts
from kerasbn.graph.clone import float_policy, inside, spec_of
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
        activation = _layer_for(core.activation, layer).named(name)
        if layer.activity_regularizer is not None:
            activation = activation.with_config(activity_regularizer=layer.activity_regularizer)
        yield Edit(
            site=addresses[0],
            kind="replace",
            detail=f"{activations.name_of_function(core.activation)} becomes the layer {name!r}",
            changes=(
                Configure(layer, {"activation": None, "activity_regularizer": None}),
                *(Insert(behind(address), activation) for address in addresses),
            ),
        )


def _layer_for(activation: Any, layer: keras.layers.Layer) -> LayerSpec:
    """The layer that computes the activation of another one; what is a layer already is one of its own, by its weights.

    That works on single steps where it did so before.
    """
    if isinstance(activation, keras.layers.Layer):
        spec = spec_of(activation, trainable=layer.trainable and activation.trainable)
        return inside(layer, spec if activation.built else dataclasses.replace(spec, origin=None))
    return LayerSpec(
        keras.layers.Activation,
        {"name": layer.name, "activation": activation, "trainable": layer.trainable, "dtype": float_policy(layer)},
    )


def _has_activation(place: Place) -> bool:
    built_in = activations.name_of_function(getattr(core_of(place.site.operation), "activation", None))
    return built_in != activations.LINEAR
