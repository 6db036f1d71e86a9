"""An optimizer like another one, but for its tempo."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.compilation.schedules import scaled
from kerasbn.compilation.weights import WeightByWeight
from kerasbn.errors import UnsupportedModelError, quoted
from kerasbn.options import Options
from kerasbn.serializable import weight_by_weight_class


@dataclasses.dataclass(frozen=True)
class Tempo:
    """How an optimizer differs from the one that it succeeds.

    Attributes:
        learning_rate: What its learning rates are multiplied by.
        weight_decay: What its weight decay is multiplied by.
        decay: How many times as fast its learning rate decays.
        rates: Pairs of a glob over layer paths and what the learning rate is multiplied by there.
        decay_exclude: Kinds of weights and globs that weight decay leaves out.
    """

    learning_rate: float = 1.0
    weight_decay: float = 1.0
    decay: float = 1.0
    rates: Sequence[tuple[str, float]] = ()
    decay_exclude: Sequence[str] = ()

    @classmethod
    def asked_for(cls, options: Options) -> Tempo:
        """That of the options, where `None` leaves as it is."""
        return cls(
            options["learning_rate_scale"] or 1.0,
            options["weight_decay_scale"] or 1.0,
            options["decay_speedup"] or 1.0,
            options["rates"],
            options["decay_exclude"],
        )

    @property
    def is_weight_by_weight(self) -> bool:
        """Whether it is not the same for all weights."""
        return bool(self.rates or self.decay_exclude)


SAME = Tempo()


def successor_of(
    optimizer: keras.optimizers.Optimizer,
    tempo: Tempo = SAME,
    *,
    rate: float | None = None,
    by_weight: WeightByWeight | None = None,
) -> Any:
    """An optimizer of the same class and configuration but for its tempo.

    Args:
        optimizer: The optimizer.
        tempo: What changes. Defaults to nothing.
        rate: A constant learning rate in the place of its own. Defaults to `None`: its own.
        by_weight: What it does with each weight. Defaults to `None`: the same with all.

    Raises:
        UnsupportedModelError: if the optimizer cannot be rebuilt from its configuration.
    """
    try:
        config = _keras.config_of_optimizer(optimizer)
    except Exception as error:
        raise _not_rebuilt(optimizer, error) from error
    if inner := getattr(optimizer, "inner_optimizer", None):
        config["inner_optimizer"] = successor_of(inner, tempo, rate=rate, by_weight=by_weight)
        return type(optimizer)(**config)
    if _keras.is_multi_optimizer(optimizer):
        return type(optimizer)(**{**config, "optimizer_map": _successor_of_map(optimizer, tempo)})
    for name in config:
        if name.endswith("weight_decay") and isinstance(config[name], float):
            config[name] *= tempo.weight_decay
    own = scaled(_keras.learning_rate_of(optimizer), tempo.learning_rate, tempo.decay)
    if rate is not None or not isinstance(own, keras.Variable):
        config["learning_rate"] = own if rate is None else rate
    kind = type(optimizer)
    if by_weight is not None:
        kind = weight_by_weight_class(kind) or kind
        config |= by_weight._asdict()
    try:
        return kind.from_config(config)
    except Exception as error:
        raise _not_rebuilt(optimizer, error) from error


def _not_rebuilt(optimizer: keras.optimizers.Optimizer, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Optimizer {optimizer.name!r} ({type(optimizer).__name__}) cannot be rebuilt from its configuration: "
        f"{quoted(error)}. Give the class a get_config that its __init__ understands, or compile the model with "
        "another."
    )


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
