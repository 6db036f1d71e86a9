"""Optimizers: what they hold, and one with a rate for each weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate as the optimizer holds it: a variable, a schedule or a function."""
    return optimizer._learning_rate


def config_of_optimizer(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """The configuration of an optimizer, but for what it holds of schedules, functions and optimizers.

    Those are handed on as they are, and need not be such as can be serialized: a stand-in that holds none is asked.
    """
    held = {"inner_optimizer": None, "_optimizer_map": None}
    if not isinstance(optimizer._learning_rate, keras.Variable):
        held["_learning_rate"] = keras.optimizers.schedules.PolynomialDecay(0.0, 1)
    stand_in = object.__new__(type(optimizer))
    vars(stand_in).update({**vars(optimizer), **{name: held[name] for name in held.keys() & vars(optimizer).keys()}})
    return dict(stand_in.get_config())


def is_multi_optimizer(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer hands each variable to one of several. Keras 3.14 has none."""
    kind = getattr(keras.optimizers, "MultiOptimizer", None)
    return kind is not None and isinstance(optimizer, kind)


def optimizer_map_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """What gives the optimizer for each variable of a `MultiOptimizer`."""
    return optimizer._optimizer_map


def step_counter(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The variable that counts steps; `Optimizer.iterations` counts accumulated ones."""
    return optimizer._iterations


def variables_optimized_by(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer was built for."""
    return list(optimizer._trainable_variables)


_BOOKKEEPING = {"_trainable_variables", "_variables", "_learning_rate", "_lock"}


def attributes_of_optimizer(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """What an optimizer holds, besides its learning rate, its weights and a list of all its variables."""
    return {
        name: value
        for name, value in vars(optimizer).items()
        if name not in _BOOKKEEPING and not name.startswith(("_self_", "_tracker"))
    }


def is_average_of_weights(attribute: object) -> bool:
    """Whether an attribute of optimizers holds the averages of weights that `use_ema` asks for."""
    return attribute == "_model_variables_moving_average"


def decays_weights(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer decays weights: `Muon` has two strengths of it."""
    return any(getattr(optimizer, name, None) is not None for name in ("weight_decay", "adam_weight_decay"))


def averaged_weights(optimizer: keras.optimizers.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """The weights of which an optimizer keeps averages, as `use_ema` asks for, each with its average."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return averaged_weights(optimizer.inner_optimizer)
    if is_multi_optimizer(optimizer):
        return [pair for each in optimizer._inner_optimizers for pair in averaged_weights(each)]
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    return [*zip(optimizer._trainable_variables, averages, strict=True)] if averages else []


class WeightByWeight(keras.optimizers.Optimizer):  # type: ignore[misc]
    """A mixin ahead of a class of optimizers: a learning rate and weight decay for each weight.

    By what every optimizer of Keras's goes through: `update_step` is told the rate, and `_apply_weight_decay` asks
    `_get_current_learning_rate` and `_use_weight_decay`. Under torch a class that is none of Keras's own does as well.

    Attributes:
        rates: What the learning rate is multiplied by for each weight, in the order of the weights.
        decays: Whether each is decayed, likewise.
    """

    rates: tuple[float, ...]
    decays: tuple[bool, ...]
    _factor: float = 1.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
        """Update a weight at its own rate."""
        rate = self._rate_of(variable)
        return super().update_step(gradient, variable, learning_rate if rate == 1.0 else learning_rate * rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        for rate in sorted(set(self.rates)):
            self._factor = rate
            try:
                decayed = [each for each in variables if self._rate_of(each) == rate and self._use_weight_decay(each)]
                if decayed:
                    super()._apply_weight_decay(decayed)
            finally:
                self._factor = 1.0

    def _rate_of(self, variable: Any) -> float:
        return float(self.rates[self._get_variable_index(variable)])

    def _get_current_learning_rate(self) -> Any:
        rate = super()._get_current_learning_rate()
        return rate if self._factor == 1.0 else rate * self._factor

    def _use_weight_decay(self, variable: Any) -> bool:
        return bool(self.decays[self._get_variable_index(variable)] and super()._use_weight_decay(variable))


def keys_of_weight(optimizer: keras.optimizers.Optimizer, weight: keras.Variable) -> tuple[Any, ...]:
    """What an optimizer may find the variables for one weight by. `Optimizer._var_key` is Keras's own way."""
    return optimizer._var_key(weight), id(weight), weight.path


def excluded_from_weight_decay(
    optimizer: keras.optimizers.Optimizer, weights: Iterable[keras.Variable]
) -> tuple[list[keras.Variable], str | None]:
    """Which of some weights an optimizer does not decay as it was told them, and its pattern of names of others."""
    excluded: set[Any] = getattr(optimizer, "_exclude_from_weight_decay", set())
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return [weight for weight in weights if optimizer._var_key(weight) in excluded], pattern and pattern.pattern
