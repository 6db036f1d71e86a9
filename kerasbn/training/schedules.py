"""Scale learning rates, in every form that Keras has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras.optimizers import schedules

_RATES: Mapping[type, tuple[str, ...]] = {
    schedules.ExponentialDecay: ("initial_learning_rate",),
    schedules.InverseTimeDecay: ("initial_learning_rate",),
    schedules.PolynomialDecay: ("initial_learning_rate", "end_learning_rate"),
    schedules.PiecewiseConstantDecay: ("values",),
    schedules.CosineDecay: ("initial_learning_rate", "warmup_target"),
    schedules.CosineDecayRestarts: ("initial_learning_rate",),
}
"""The arguments of each of Keras's schedules that are learning rates, so scale with them."""


@keras.saving.register_keras_serializable(package="kerasbn")
class ScaledSchedule(schedules.LearningRateSchedule):
    """A learning-rate schedule of another one's values times a constant.

    Args:
        schedule: A `LearningRateSchedule`, typically one of your own.
        scale: Positive float, what each learning rate is multiplied by.
    """

    def __init__(self, schedule: schedules.LearningRateSchedule, scale: float) -> None:
        self.schedule = schedule
        self.scale = float(scale)

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        return self.schedule(step) * self.scale

    def get_config(self) -> dict[str, Any]:
        """The arguments, serialized."""
        return {"schedule": schedules.serialize(self.schedule), "scale": self.scale}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ScaledSchedule:
        """The inverse of `get_config`."""
        schedule = config["schedule"]
        return cls(schedules.deserialize(schedule) if isinstance(schedule, dict) else schedule, config["scale"])


def scaled(rate: Any, scale: float) -> Any:
    """A learning rate, schedule or function of no arguments, times a constant.

    Keras's own schedules stay what they are, with scaled arguments.
    """
    if type(rate) in _RATES:
        config = rate.get_config()
        config.update({name: _times(config[name], scale) for name in _RATES[type(rate)]})
        return type(rate).from_config(config)
    if isinstance(rate, schedules.LearningRateSchedule):
        return ScaledSchedule(rate, scale)
    if isinstance(rate, keras.Variable):
        return float(rate.numpy()) * scale
    return lambda: rate() * scale


def _times(rate: Any, scale: float) -> Any:
    if rate is None:
        return None
    if isinstance(rate, list | tuple):
        return [_times(each, scale) for each in rate]
    return float(rate) * scale
