"""Scale learning rates and speed up their decay, in every form that Keras has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras.optimizers import schedules

from kerasbn.serializable import ScaledSchedule

_RATES: Mapping[type, tuple[str, ...]] = {
    schedules.ExponentialDecay: ("initial_learning_rate",),
    schedules.InverseTimeDecay: ("initial_learning_rate",),
    schedules.PolynomialDecay: ("initial_learning_rate", "end_learning_rate"),
    schedules.PiecewiseConstantDecay: ("values",),
    schedules.CosineDecay: ("initial_learning_rate", "warmup_target"),
    schedules.CosineDecayRestarts: ("initial_learning_rate",),
}
"""The arguments of each of Keras's schedules that are learning rates, so scale with them."""

_SPANS: Mapping[type, str] = {
    schedules.ExponentialDecay: "decay_steps",
    schedules.InverseTimeDecay: "decay_steps",
    schedules.PolynomialDecay: "decay_steps",
    schedules.PiecewiseConstantDecay: "boundaries",
    schedules.CosineDecay: "decay_steps",
    schedules.CosineDecayRestarts: "first_decay_steps",
}
"""The argument of each that is a number of steps of decay. A warmup is none."""


def scaled(rate: Any, scale: float, speedup: float = 1.0) -> Any:
    """A learning rate times a constant, its decay run through faster.

    Keras's own schedules stay what they are, with scaled arguments. What does not decay by itself,
    a number or a function of no arguments, cannot decay faster.

    Args:
        rate: What an optimizer holds: a variable, a schedule or a function of no arguments.
        scale: What each learning rate is multiplied by.
        speedup: How many times as fast it decays. Defaults to `1.0`.
    """
    if scale == speedup == 1.0:
        return rate
    if type(rate) in _RATES:
        config = rate.get_config()
        config.update({name: _times(config[name], scale) for name in _RATES[type(rate)]})
        span = _SPANS[type(rate)]
        return type(rate).from_config({**config, span: _shortened(config[span], speedup)})
    if isinstance(rate, schedules.LearningRateSchedule):
        return ScaledSchedule(rate, scale, speedup)
    if isinstance(rate, keras.Variable):
        return float(rate.numpy()) * scale
    return lambda: rate() * scale


def decays(rate: Any) -> bool:
    """Whether a learning rate is one whose decay can be sped up."""
    return isinstance(rate, schedules.LearningRateSchedule)


def _times(rate: Any, scale: float) -> Any:
    if rate is None:
        return None
    if isinstance(rate, list | tuple):
        return [_times(each, scale) for each in rate]
    return float(rate) * scale


def _shortened(steps: Any, speedup: float) -> Any:
    """A number of steps, or several, divided; whole where it comes out whole."""
    if isinstance(steps, list | tuple):
        return [_shortened(each, speedup) for each in steps]
    shorter = steps / speedup
    return int(shorter) if shorter == int(shorter) else shorter
