"""Scale the L1 and L2 regularizers of layers' weights.

With batch normalization the strength of L2 matters less, as BN(a W x) = BN(W x) for every a > 0;
Ioffe & Szegedy (2015, section 4.2.1) divide it by 5. Activity regularizers are no weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kerasbn.facts.facts import Facts
from kerasbn.graph.clone import spec_of
from kerasbn.graph.edit import Configure
from kerasbn.graph.model import LayerSpec
from kerasbn.options import Options
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.reasons import Reason, Skip

_NORMS = ("l1", "l2")


def scale_regularizers(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose other regularizers for each layer that has L1 or L2."""
    scale = options["weight_decay_scale"]
    if scale is None:
        return
    removed = draft.removed
    for operation, sites in facts.calls.items():
        addresses = [site.address for site in sites if site.address not in removed]
        layer = operation
        if isinstance(operation, LayerSpec):  # it replaces another
            layer = operation if operation.origin is None else operation.origin
        if addresses and isinstance(layer, LayerSpec) and dict(_in_arguments(layer)):
            yield Skip(addresses[0], Reason.REGULARIZER, "those of the layer that it replaces, which stay as they are")
        if not addresses or not isinstance(layer, keras.layers.Layer) or not _is_regularized(layer):
            continue
        found = dict(_in_arguments(spec_of(layer)))
        if found:
            scaled = {name: _scaled(regularizer, scale) for name, regularizer in found.items()}
            yield Edit(addresses[0], "replace", f"{', '.join(found)} times {scale:g}", (Configure(layer, scaled),))
        else:
            detail = "its regularizers are not L1 or L2, or not arguments of the layer"
            yield Skip(addresses[0], Reason.REGULARIZER, detail)


def _is_regularized(layer: keras.layers.Layer) -> bool:
    """Whether a regularizer acts on a weight of a layer."""
    return any(variable.regularizer is not None for variable in layer.trainable_variables)


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
