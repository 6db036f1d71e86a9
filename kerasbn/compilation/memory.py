"""What an optimizer has learned about the weights of a model, carried over to the optimizer of another.

Keras does not say which variable of an optimizer belongs to which weight. But optimizers look them up by the weight's
index, so they keep them in lists as long as that of their weights, whatever order they made them in.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError


def carry_memory(
    source: keras.optimizers.Optimizer,
    target: keras.optimizers.Optimizer,
    old: Sequence[keras.Variable],
    new: Sequence[keras.Variable],
    successors: Mapping[int, keras.Variable],
    undecayed: Sequence[keras.Variable] = (),
) -> None:
    """Have an optimizer go on where another one stands: build it as that one is, and fill it.

    Args:
        source: The optimizer to succeed.
        target: An optimizer of the same class, not built yet.
        old: The weights of the source's model.
        new: The weights of the target's model, in its order, which is that of the optimizer: JAX pairs them by it.
        successors: The new weight for each old one that lives on, by the old one's `id`.
        undecayed: The new weights that it does not decay, besides those that the source does not. Defaults to none.

    Raises:
        UnsupportedModelError: if the source keeps something of which it does not show to which weight it belongs.
    """
    for ours, theirs in zip(leaves(target), leaves(source), strict=True):
        _carry_exclusions(theirs, ours, old, successors, undecayed)
    if _keras.is_multi_optimizer(source):
        _carry_choice(source, target, successors)
    if not source.built:
        return
    target.build(optimized_after(source, new, successors))
    _fill(source, target, successors)


def optimized_after(
    source: keras.optimizers.Optimizer, new: Sequence[keras.Variable], successors: Mapping[int, keras.Variable]
) -> list[keras.Variable]:
    """The weights that the successor of an optimizer is to train: with those that were frozen since it was built."""
    optimized = (
        {id(successors.get(id(weight))) for weight in _keras.variables_optimized_by(source)} if source.built else {}
    )
    return [weight for weight in new if weight.trainable or id(weight) in optimized]


def leaves(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers that do the work: the one inside a wrapper, each of several, else the one itself."""
    if inside := _inside(optimizer):
        return [leaf for each in inside for leaf in leaves(each)]
    return [optimizer]


def _inside(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers that one hands its work to."""
    if inner := getattr(optimizer, "inner_optimizer", None):
        return [inner]
    return list(optimizer.optimizers) if _keras.is_multi_optimizer(optimizer) else []


def _carry_exclusions(
    source: keras.optimizers.Optimizer,
    target: keras.optimizers.Optimizer,
    old: Sequence[keras.Variable],
    successors: Mapping[int, keras.Variable],
    undecayed: Sequence[keras.Variable],
) -> None:
    """Exclude from weight decay what was excluded, the new weights too that a pattern of names is for."""
    excluded, pattern = _keras.excluded_from_weight_decay(source, old)
    living = [successors[id(weight)] for weight in excluded if id(weight) in successors]
    living += undecayed if _keras.decays_weights(source) else []
    if living or pattern:
        target.exclude_from_weight_decay(var_list=living, var_names=pattern and [pattern])


def _carry_choice(source: Any, target: Any, successors: Mapping[int, keras.Variable]) -> None:
    """Keep each weight with its optimizer, where its path is another one now."""
    chosen = _keras.optimizer_map_of(target)
    counterparts = dict(zip(map(id, source.optimizers), target.optimizers, strict=True))
    for weight in _keras.variables_optimized_by(source) if source.built else ():
        successor = successors.get(id(weight))
        own = counterparts[id(_keras.optimizer_map_of(source)(weight))]
        if successor is not None and chosen(successor) is not own:
            chosen[successor.path] = own


class _Slot(NamedTuple):
    """A variable of an optimizer.

    Attributes:
        place: Where the optimizer keeps it, but for the weight that it is for.
        weight: The weight that it is for, if it is for one.
        variable: The variable.
    """

    place: tuple[Hashable, ...]
    weight: keras.Variable | None
    variable: keras.Variable


def _fill(
    source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer, successors: Mapping[int, keras.Variable]
) -> None:
    for theirs, ours in zip(_inside(source), _inside(target), strict=True):
        if theirs.built and ours.built:
            _fill(theirs, ours, successors)
    fresh = {(slot.place, id(slot.weight)): slot for slot in _slots(target)}
    known = {id(rate)} if isinstance(rate := _keras.learning_rate_of(source), keras.Variable) else set()
    for slot in _slots(source):
        known.add(id(slot.variable))
        weight = None if slot.weight is None else successors.get(id(slot.weight))
        if weight is None and slot.weight is not None:
            continue
        match = fresh.pop((slot.place, id(weight)), None)
        if match is None or match.variable.shape != slot.variable.shape:
            raise _unknown(source, slot.variable)
        _keras.set_value(match.variable, slot.variable)
    inside = {id(variable) for each in _inside(source) for variable in each.variables}
    for variable in source.variables:
        if id(variable) not in known | inside:
            raise _unknown(source, variable)
    for slot in fresh.values():
        if slot.weight is not None and _keras.is_average_of_weights(slot.place[0]):
            _keras.set_value(slot.variable, slot.weight)  # Keras starts them all from the first step on, which is over


def _slots(optimizer: keras.optimizers.Optimizer) -> Iterator[_Slot]:
    weights = _keras.variables_optimized_by(optimizer)
    own = set(map(id, weights))
    by_key = {key: weight for weight in weights for key in _keras.keys_of_weight(optimizer, weight)}

    def found_in(value: Any, place: tuple[Hashable, ...], weight: keras.Variable | None) -> Iterator[_Slot]:
        if id(value) in own:
            return
        if isinstance(value, keras.Variable):
            yield _Slot(place, weight, value)
        elif isinstance(value, list | tuple) and len(value) == len(weights) and weight is None:
            for each, of in zip(value, weights, strict=True):
                yield from found_in(each, place, of)
        elif isinstance(value, list | tuple):
            for index, each in enumerate(value):
                yield from found_in(each, (*place, index), weight)
        elif isinstance(value, dict):
            for key, each in value.items():
                of = by_key.get(key)
                yield from found_in(each, place if of is not None else (*place, key), weight if of is None else of)

    for name, value in _keras.attributes_of_optimizer(optimizer).items():
        yield from found_in(value, (name,), None)


def _unknown(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Optimizer {optimizer.name!r} ({type(optimizer).__name__}) keeps {variable.name!r}, and it does not show "
        "which weight that is for. Keep such variables in lists with one entry for each weight, or start without what "
        "the optimizer has learned: compile the model with a new one first."
    )
