"""The batch normalizations at a call site: the layer that is called, or those that it holds.

A recurrent layer that is normalized holds one for each cell, `Bidirectional` around it those of both
directions, a layer of the user's own whatever it was given. Each has an address like that of a call
site, `"both/forward_lstm/lstm_cell_bn#0"`: its path, and which call it is of the layer that holds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import OptionError
from kerasbn.graph.model import CallSite, core_of, matches
from kerasbn.graph.read import read_to_run


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


def paths_of_norms(model: keras.Model) -> dict[keras.layers.BatchNormalization, str]:
    """The batch normalizations of a model that were built, each with its path through nested models and layers."""
    found: dict[keras.layers.Layer, str] = _keras.paths_inside(model)
    if _keras.is_graph(model):
        found = {norm.layer: norm.path for site in reversed([*read_to_run(model).walk()]) for norm in norms_at(site)}
    return {norm: found[norm] for norm in norms_in(model) if norm.built and norm in found}


def is_frozen(norm: keras.layers.BatchNormalization) -> bool:
    """Whether training leaves the statistics of a batch normalization as they are."""
    return not norm.trainable or getattr(norm, "frozen_statistics", False)


def chosen_norms(model: keras.Model, layers: str | Iterable[str]) -> dict[keras.layers.BatchNormalization, str]:
    """The batch normalizations of a model whose paths match a glob, or one of several, each with its path.

    Raises:
        OptionError: for a glob that matches none.
    """
    paths = paths_of_norms(model)
    globs = (layers,) if isinstance(layers, str) else tuple(layers)
    for glob in globs:
        if glob != "*" and not any(matches(path, glob) for path in paths.values()):
            raise OptionError(
                f"Option layers holds {glob!r}, which matches no batch normalization of model {model.name!r}. They are "
                f"matched by their path, such as {next(iter(paths.values()), 'conv1_bn')!r}."
            )
    return {norm: path for norm, path in paths.items() if any(matches(path, glob) for glob in globs)}


@contextlib.contextmanager
def thawed(norms: Collection[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Inside, batch normalizations that are frozen run as the others do."""
    still = [norm for norm in norms if not norm.trainable]
    fixed = [norm for norm in norms if getattr(norm, "frozen_statistics", False)]
    for norm in still:
        _keras.set_own_trainable(norm, True)
    for norm in fixed:
        norm.frozen_statistics = False
    try:
        yield
    finally:
        for norm in still:
            _keras.set_own_trainable(norm, False)
        for norm in fixed:
            norm.frozen_statistics = True


def norms_in(operation: Any) -> list[keras.layers.BatchNormalization]:
    """A layer itself or those that it holds, if they are batch normalizations."""
    if not isinstance(operation, keras.layers.Layer):
        return []
    return [layer for layer in _keras.sublayers(operation) if isinstance(layer, keras.layers.BatchNormalization)]
