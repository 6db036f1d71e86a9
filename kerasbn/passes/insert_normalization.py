"""Insert a normalization at each place.

With moving_mean = 0, moving_variance = 1 - epsilon, gamma = sqrt(moving_variance + epsilon) = 1 and
beta = b it starts, at inference, as the exact identity on W x + b, where the bias b is taken from
the linear layer right before it:

    BN(y) = gamma (y - moving_mean) / sqrt(moving_variance + epsilon) + beta = y + b,   y = W x

In training, BN subtracts the mean of the batch, so a bias before it would be redundant (Ioffe &
Szegedy, 2015, section 3.2).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from kerasbn.catalog.linear import channel_bias, linear_of
from kerasbn.errors import OptionError
from kerasbn.graph.clone import constructor_arguments, spec_of
from kerasbn.graph.edit import Change, Insert, InsertAhead, Replace
from kerasbn.graph.model import Graph, LayerSpec, Operation
from kerasbn.layers import BatchNormalization
from kerasbn.options import Options
from kerasbn.passes.naming import Names
from kerasbn.passes.placement import Place, Placements
from kerasbn.passes.proposal import Edit, Proposals


def insert_normalization(graph: Graph, placements: Placements, names: Names, options: Options) -> Proposals:
    """Propose a normalization for each place.

    Raises:
        OptionError: if `norm` is not a layer instance, or cannot start as the identity where
            `preserve` asks for it.
    """
    prototype = _prototype(options)
    edits: list[Edit] = []
    for layer, places in _by_served_layer(placements.places).items():
        current = graph.by_address[places[0].serves.address].operation
        addresses = {site.address for site in graph.calls[current]}
        bias = channel_bias(layer) if _takes_bias(layer, places, addresses, prototype) else None
        changes: list[Change] = [] if bias is None else [_without_bias(current)]
        spec = None
        for place in places:
            if spec is None or options.shared == "per_call":
                spec = _normalization(prototype, layer, place, names, options.preserve, bias)
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


def _prototype(options: Options) -> keras.layers.Layer:
    norm = BatchNormalization() if options.norm is None else options.norm
    if not isinstance(norm, keras.layers.Layer):
        raise OptionError(
            f"Option norm is {norm!r}; it must be a layer instance, such as keras.layers.BatchNormalization(), or None."
        )
    if options.data is not None and not isinstance(norm, keras.layers.BatchNormalization):
        raise OptionError(
            f"Option data is given, but norm is a {type(norm).__name__}, which keeps no statistics; leave data out."
        )
    if options.data is not None and options.preserve and not (norm.center and norm.scale):
        raise OptionError(
            "Option norm has center=False or scale=False, so it cannot start from measured statistics and compute what "
            "the source does; give it both, or pass preserve=False."
        )
    return norm


def _by_served_layer(places: Iterable[Place]) -> Mapping[Any, list[Place]]:
    groups: dict[Any, list[Place]] = defaultdict(list)
    for place in places:
        groups[place.serves.operation].append(place)
    return groups


def _takes_bias(layer: Any, places: list[Place], addresses: set[str], prototype: keras.layers.Layer) -> bool:
    """Whether a bias of the layer becomes beta: at every call of it a normalization follows at once."""
    return (
        linear_of(layer) is not None
        and isinstance(prototype, keras.layers.BatchNormalization)
        and prototype.center
        and {place.site.address for place in places if place.site.operation is layer and place.position == "before"}
        == addresses
    )


def _without_bias(operation: Operation) -> Replace:
    spec = operation if isinstance(operation, LayerSpec) else spec_of(operation)
    linear = linear_of(spec)
    assert linear is not None
    return Replace(operation, spec.with_config(**dict([linear.no_bias])))


def _normalization(
    prototype: keras.layers.Layer,
    layer: keras.Operation,
    place: Place,
    names: Names,
    preserve: bool,
    bias: keras.Variable | None,
) -> LayerSpec:
    config = constructor_arguments(prototype)
    config["name"] = names.fresh(f"{layer.name}_bn", beside=place.site.path)
    if isinstance(config.get("axis"), int):
        config["axis"] = place.axis
    if isinstance(layer, keras.layers.Layer):
        config["trainable"] = layer.trainable
        config["dtype"] = _float_policy(layer)
    is_bn = isinstance(prototype, keras.layers.BatchNormalization)
    return LayerSpec(type(prototype), config, values=_identity(prototype, bias) if preserve and is_bn else {})


def _float_policy(layer: keras.layers.Layer) -> keras.DTypePolicy:
    """The layer's dtype policy, less any quantization."""
    policy = layer.dtype_policy
    return keras.DTypePolicy(layer.compute_dtype) if policy.quantization_mode else policy


def _identity(norm: keras.layers.BatchNormalization, bias: keras.Variable | None) -> Mapping[str, Callable[[], Any]]:
    """The weights with which a batch normalization adds `bias` and does nothing else, at inference."""
    variance = max(1.0 - norm.epsilon, 0.0)
    gamma = math.sqrt(variance + norm.epsilon)
    if not norm.scale and not math.isclose(gamma, 1.0):
        raise OptionError(
            f"Option norm has scale=False and epsilon={norm.epsilon}, so it cannot start as the identity; "
            "use an epsilon below 1, scale=True, or preserve=False."
        )
    return {
        "gamma": lambda: gamma,
        "beta": lambda: 0.0 if bias is None else bias,
        "moving_mean": lambda: 0.0,
        "moving_variance": lambda: variance,
    }
