"""Which weights of a rewritten model learn at which rates, and which of them are decayed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from kerasbn import _keras
from kerasbn.catalog.roles import NORMALIZING, role_of
from kerasbn.graph.model import matches


class Placed(NamedTuple):
    """A layer of the rewritten model.

    Attributes:
        path: Its path through nested models.
        layer: The layer.
        norms: The normalizations among it and what it holds that are new.
    """

    path: str
    layer: keras.layers.Layer
    norms: Sequence[keras.layers.Layer]


class WeightByWeight(NamedTuple):
    """What an optimizer does with each weight that it is to train, in their order.

    Attributes:
        rates: What the learning rate is multiplied by.
        decays: Whether the weight is decayed.
    """

    rates: Sequence[float]
    decays: Sequence[bool]


def rates_by_weight(placed: Iterable[Placed], rates: Iterable[tuple[str, float]]) -> Mapping[int, float]:
    """The rates that are asked for, by the `id` of the weight."""
    layers = list(placed)
    found: dict[int, float] = {}
    for glob, rate in rates:
        for each in layers:
            if matches(each.path, glob):
                for weight in each.layer.variables:
                    found.setdefault(id(weight), rate)
    return found


def left_out_of_decay(placed: Iterable[Placed], chosen: Collection[str]) -> list[keras.Variable]:
    """The weights that weight decay leaves out: those of new normalizations, and those that are chosen."""
    found = {id(weight): weight for each in placed for weight in _left_out(each, chosen)}
    return list(found.values())


def _left_out(placed: Placed, chosen: Collection[str]) -> Iterator[keras.Variable]:
    for norm in placed.norms:
        yield from norm.variables
    if "normalization" in chosen:
        for layer in _keras.sublayers(placed.layer):
            if is_normalization(layer):
                yield from layer.variables
    is_chosen = any(matches(placed.path, glob) for glob in chosen)
    for weight in placed.layer.variables:
        if is_chosen or ("bias" in chosen and weight.name.endswith("bias")):
            yield weight


def is_normalization(layer: Any) -> bool:
    """Whether a layer normalizes."""
    return role_of(layer) in NORMALIZING


def weight_by_weight(
    source: keras.optimizers.Optimizer,
    old: Sequence[keras.Variable],
    new: Sequence[keras.Variable],
    successors: Mapping[int, keras.Variable],
    rates: Mapping[int, float],
    undecayed: Iterable[keras.Variable],
) -> WeightByWeight:
    """What the successor of an optimizer is to do with each weight.

    Args:
        source: The optimizer.
        old: The weights of its model.
        new: The weights that the successor is to train.
        successors: The new weight for each old one that lives on, by the old one's `id`.
        rates: The rates that are asked for, by the `id` of the weight.
        undecayed: The new weights that are not to be decayed, besides those that the source does not decay.
    """
    excluded, pattern = _keras.excluded_from_weight_decay(source, old)
    still = {id(weight) for weight in undecayed} | {id(successors.get(id(weight))) for weight in excluded}
    known: dict[int, float] = {}
    if isinstance(source, _keras.WeightByWeight):
        trained = _keras.variables_optimized_by(source) if source.built else [each for each in old if each.trainable]
        for weight, rate, decays in zip(trained, source.rates, source.decays, strict=False):
            successor = successors.get(id(weight))
            known[id(successor)] = rate
            still |= set() if decays else {id(successor)}
    return WeightByWeight(
        [rates.get(id(weight), known.get(id(weight), 1.0)) for weight in new],
        [id(weight) not in still and not (pattern and re.search(pattern, weight.name)) for weight in new],
    )
