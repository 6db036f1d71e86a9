"""The batch normalizations at a call site: the layer that is called, or those that it holds.

A recurrent layer that is normalized holds one for each cell, `Bidirectional` around it those of both
directions, a layer of the user's own whatever it was given. Each has an address like that of a call
site, `"both/forward_lstm/lstm_cell_bn#0"`: its path, and which call it is of the layer that holds it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.graph.model import CallSite, core_of


@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
    """A batch normalization at a call site.

    Attributes:
        layer: The batch normalization.
        path: Its path through nested models and layers.
        call: Which of the calls of the layer that holds it.
    """

    layer: keras.layers.BatchNormalization
    path: str
    call: int

    @property
    def address(self) -> str:
        """The normalization as the user reads it, for a call of the layer that holds it."""
        return f"{self.path}#{self.call}"


def norms_at(site: CallSite) -> tuple[Norm, ...]:
    """The batch normalizations at a call site. One that `TimeDistributed` applies to every step is what is called."""
    core = core_of(site.operation)
    if isinstance(core, keras.layers.BatchNormalization):
        return (Norm(core, site.path, site.call),)
    if not isinstance(site.operation, keras.layers.Layer):
        return ()
    paths = _keras.paths_inside(site.operation)
    return tuple(Norm(norm, f"{site.path}/{paths[norm]}", site.call) for norm in norms_in(site.operation))


def norms_in(operation: Any) -> list[keras.layers.BatchNormalization]:
    """A layer itself or those that it holds, if they are batch normalizations."""
    if not isinstance(operation, keras.layers.Layer):
        return []
    return [layer for layer in _keras.sublayers(operation) if isinstance(layer, keras.layers.BatchNormalization)]
