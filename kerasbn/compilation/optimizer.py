"""Carry an optimizer over to a rewritten model: its configuration, and its progress on the weights that live on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras

from kerasbn import _keras
from kerasbn.compilation.schedules import scaled
from kerasbn.errors import UnsupportedModelError, quoted
from kerasbn.options import OF_THE_OPTIMIZER, Options


@dataclasses.dataclass(frozen=True)
class Tempo:
    """How an optimizer differs from the one that it succeeds.

    Attributes:
        learning_rate: What its learning rates are multiplied by.
        weight_decay: What its weight decay is multiplied by.
        decay: How many times as fast its learning rate decays.
    """

    learning_rate: float = 1.0
    weight_decay: float = 1.0
    decay: float = 1.0

    @classmethod
    def asked_for(cls, options: Options) -> Tempo:
        """That of the options, where `None` leaves as it is."""
        return cls(*(options[name] or 1.0 for name in OF_THE_OPTIMIZER))


SAME = Tempo()


def successor_of(optimizer: keras.optimizers.Optimizer, tempo: Tempo = SAME, *, rate: float | None = None) -> Any:
    """An optimizer of the same class and configuration but for its tempo.

    Args:
        optimizer: The optimizer.
        tempo: What changes. Defaults to nothing.
        rate: A constant learning rate in the place of its own. Defaults to `None`: its own.

    Raises:
        UnsupportedModelError: if the optimizer cannot be rebuilt from its configuration.
    """
    config = optimizer.get_config()
    if inner := getattr(optimizer, "inner_optimizer", None):
        config["inner_optimizer"] = successor_of(inner, tempo, rate=rate)
        return type(optimizer)(**config)
    if _keras.is_multi_optimizer(optimizer):
        return type(optimizer)(**{**config, "optimizer_map": _successor_of_map(optimizer, tempo)})
    for name in config:
        if name.endswith("weight_decay") and isinstance(config[name], float):
            config[name] *= tempo.weight_decay
    own = scaled(_keras.learning_rate_of(optimizer), tempo.learning_rate, tempo.decay)
    if rate is not None or not isinstance(own, keras.Variable):
        config["learning_rate"] = own if rate is None else rate
    try:
        return type(optimizer).from_config(config)
    except Exception as error:
        raise UnsupportedModelError(
            f"Optimizer {optimizer.name!r} ({type(optimizer).__name__}) cannot be rebuilt from its configuration: "
            f"{quoted(error)}. Give the class a get_config that its __init__ understands, or compile the model with "
            "another."
        ) from error


def leaves(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers that do the work: the one inside a wrapper, each of several, else the one itself."""
    if inner := getattr(optimizer, "inner_optimizer", None):
        return leaves(inner)
    if _keras.is_multi_optimizer(optimizer):
        return [leaf for each in optimizer.optimizers for leaf in leaves(each)]
    return [optimizer]


def _successor_of_map(optimizer: Any, tempo: Tempo) -> Any:
    """The map of a `MultiOptimizer` with the successors of its optimizers; what was one stays one."""
    source = _keras.optimizer_map_of(optimizer)
    if not hasattr(source, "default_optimizer"):
        raise UnsupportedModelError(
            f"Optimizer {optimizer.name!r} (MultiOptimizer) chooses its optimizers by a function, which would give the "
            "rewritten model those of the source. Compile the model with a keras.optimizers.OptimizerMap."
        )
    made = {id(each): successor_of(each, tempo) for each in (source.default_optimizer, *source.values())}
    return type(source)(
        made[id(source.default_optimizer)], {pattern: made[id(each)] for pattern, each in source.items()}
    )


def carry_progress(
    source: keras.optimizers.Optimizer,
    target: keras.optimizers.Optimizer,
    weights: list[keras.Variable],
    successors: Mapping[int, keras.Variable],
) -> None:
    """Build `target` for `weights` and copy into it what `source` has learned about those that live on.

    Args:
        source: The optimizer to take the progress from. If it was never built there is none.
        target: An optimizer of the same class, not built yet.
        weights: The trainable weights that `target` is for.
        successors: The new weight for each old one, by the old one's `id`.
    """
    if inner := getattr(source, "inner_optimizer", None):
        carry_progress(inner, target.inner_optimizer, weights, successors)
    if not source.built:
        return
    if _keras.is_multi_optimizer(source):
        choose = _keras.optimizer_map_of(target)
        for one, other in zip(source.optimizers, target.optimizers, strict=True):
            if share := [weight for weight in weights if choose(weight) is other]:
                carry_progress(one, other, share, successors)
        target.build(weights)
        _keras.step_counter(target).assign(_keras.step_counter(source))
        return
    old = list(_slots_of(source))
    new = {slot.key: slot.variable for slot in _build_recorded(target, weights)}
    for slot in old:
        successor = successors.get(slot.key.weight)
        match = new.get(slot.key._replace(weight=id(successor)))
        if match is not None and match.shape == slot.variable.shape:
            match.assign(slot.variable)
    _keras.step_counter(target).assign(_keras.step_counter(source))


class _Key(NamedTuple):
    """Tells the slots of one optimizer apart: of which weight, and which one of that weight's."""

    weight: int
    name: str
    number: int


class _Slot(NamedTuple):
    key: _Key
    variable: Any


def _slots_of(optimizer: keras.optimizers.Optimizer) -> Iterator[_Slot]:
    """The slots of a built optimizer, each with the weight that it belongs to.

    Keras does not say which slot belongs to which weight. An optimizer of the same configuration
    asks for its slots in the same order, so a probe that makes none of them tells.
    """
    probe = successor_of(optimizer)
    keys: list[_Key] = []
    _record(probe, lambda key, make: keys.append(key))
    probe.build(_keras.variables_optimized_by(optimizer))
    slots = optimizer.variables[len(optimizer.variables) - len(keys) :]
    yield from map(_Slot, keys, slots)


def _build_recorded(optimizer: keras.optimizers.Optimizer, weights: list[keras.Variable]) -> list[_Slot]:
    """Build an optimizer; the slots that it made."""
    slots: list[_Slot] = []

    def note(key: _Key, make: Callable[[], Any]) -> Any:
        slots.append(_Slot(key, make()))
        return slots[-1].variable

    undo = _record(optimizer, note)
    optimizer.build(weights)
    undo()
    return slots


def _record(
    optimizer: keras.optimizers.Optimizer, note: Callable[[_Key, Callable[[], Any]], Any]
) -> Callable[[], None]:
    """Have `note` make the slots that an optimizer asks for."""
    make = optimizer.add_variable_from_reference
    count: dict[tuple[int, str], int] = {}

    def add_variable_from_reference(reference_variable: Any, name: str | None = None, **kwargs: Any) -> Any:
        at = (id(reference_variable), name or "")
        count[at] = count.get(at, -1) + 1
        return note(_Key(*at, count[at]), lambda: make(reference_variable, name=name, **kwargs))

    optimizer.add_variable_from_reference = add_variable_from_reference

    def undo() -> None:
        del optimizer.add_variable_from_reference

    return undo
