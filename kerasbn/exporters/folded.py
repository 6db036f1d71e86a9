"""Fold batch normalization ahead of writing a model."""

from __future__ import annotations

import dataclasses
from collections import Counter

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.options import CustomLayers
from kerasbn.planner import applied, plan
from kerasbn.reasons import Reason


@dataclasses.dataclass(frozen=True)
class Served:
    """What is written of a model.

    Attributes:
        model: The model to write.
        folded: How many calls of batch normalization were folded.
        kept: How many were not, by the value of their `Reason`.
    """

    model: keras.Model
    folded: int = 0
    kept: dict[str, int] = dataclasses.field(default_factory=dict)


def folded_for_serving(model: keras.Model, custom_layers: CustomLayers) -> Served:
    """A model with its batch normalization folded, the very model where that cannot be done.

    The layers that need no change are the model's own, so layers that cannot be rebuilt from their
    configuration do not stand in the way.
    """
    norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in _keras.sublayers(model))
    if not norms:
        return Served(model)
    try:
        folding = plan(model, position="none", dropout="none", fold=True, copy=False, custom_layers=custom_layers)
        kept = Counter(skip.reason.value for skip in folding.skips)
        return Served(applied(folding) if folding.edits else model, len(folding.edits), dict(kept))
    except UnsupportedModelError:
        return Served(model, kept={Reason.OPAQUE.value: norms})
