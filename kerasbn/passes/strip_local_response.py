"""Remove local response normalization, which batch normalization makes needless (Ioffe & Szegedy, 2015, 4.2.1).

Keras has no such layer. People wrap TensorFlow's function in a `Lambda`, or write a layer of that
name; such a layer without weights that keeps the shape is taken for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Remove
from kerasbn.graph.model import CallSite
from kerasbn.options import Options
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.reasons import Reason, Skip

_FUNCTIONS = ("local_response_normalization", "lrn")
_LAYERS = ("localresponsenormalization", "localresponsenorm", "lrn", "lrn2d")


def strip_local_response(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose to remove each call of a local response normalization."""
    for site in facts.graph.walk():
        if _is_local_response(site):
            if options["local_response_normalization"] == "keep":
                yield Skip(site.address, Reason.LOCAL_RESPONSE, 'local_response_normalization="keep"')
            elif site.outputs[0] in facts.graph.output_values:
                yield Skip(site.address, Reason.OUTPUT, "yields an output of the model")
            else:
                changes = (Remove(site.address),)
                yield Edit(site.address, "remove", "local response normalization", changes, exact=False)


def _is_local_response(site: CallSite) -> bool:
    layer: Any = site.operation
    if not isinstance(layer, keras.layers.Layer) or layer.weights or len(site.inputs) != 1 or len(site.outputs) != 1:
        return False
    if site.inputs[0].shape != site.outputs[0].shape:
        return False
    if isinstance(layer, keras.layers.Lambda):
        code = getattr(layer.function, "__code__", None)
        return getattr(layer.function, "__name__", "") in _FUNCTIONS or (
            code is not None and not set(_FUNCTIONS).isdisjoint(code.co_names)
        )
    return type(layer).__name__.lower().replace("_", "") in _LAYERS
