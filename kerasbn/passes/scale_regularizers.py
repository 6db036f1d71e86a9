"""Scale the L1 and L2 regularizers of layers' weights.

With batch normalization the strength of L2 matters less, as BN(a W x) = BN(W x) for every a > 0;
Ioffe & Szegedy (2015, section 4.2.1) divide it by 5. Activity regularizers are no weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kerasbn.graph.clone import spec_of
from kerasbn.graph.edit import Replace
from kerasbn.graph.model import Graph, LayerSpec
from kerasbn.options import Options
from kerasbn.passes.proposal import Edit, Proposals, Reason, Skip

_NORMS = ("l1", "l2")


def scale_regularizers(graph: Graph, options: Options) -> Proposals:
    """Propose a new layer for each one of the source that has L1 or L2 regularizers."""
    scale = options.weight_decay_scale
    return Proposals() if scale is None else Proposals.of(_outcomes(graph, scale))


def _outcomes(graph: Graph, scale: float) -> Iterator[Edit | Skip]:
    for operation, sites in graph.calls.items():
        layer = operation.origin if isinstance(operation, LayerSpec) else operation
        if not isinstance(layer, keras.layers.Layer) or not any(_regularizers_of_weights(layer)):
            continue
        spec = operation if isinstance(operation, LayerSpec) else spec_of(layer)
        stronger = dict(_in_arguments(spec))
        if stronger:
            changed = spec.with_config(**{name: _scaled(each, scale) for name, each in stronger.items()})
            detail = f"{', '.join(stronger)} times {scale:g}"
            yield Edit(sites[0].address, "replace", detail, (Replace(operation, changed),))
        else:
            detail = "its regularizers are not L1 or L2, or not arguments of the layer"
            yield Skip(sites[0].address, Reason.REGULARIZER, detail)


def _regularizers_of_weights(layer: keras.layers.Layer) -> Iterator[Any]:
    return (variable.regularizer for variable in layer.trainable_variables if variable.regularizer is not None)


def _in_arguments(spec: LayerSpec) -> Iterator[tuple[str, Any]]:
    """The L1 and L2 regularizers among a layer's arguments, or those of the layers that it wraps."""
    for inner in spec.wrapped.values():
        yield from _in_arguments(inner)
    for name, value in spec.config.items():
        known = type(value) in (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
        if name.endswith("_regularizer") and name != "activity_regularizer" and known:
            yield name, value


def _scaled(regularizer: Any, scale: float) -> Any:
    config = regularizer.get_config()
    strengths = {norm: float(config[norm]) * scale for norm in _NORMS if norm in config}
    return type(regularizer).from_config({**config, **strengths})
