"""A learning rate schedule of the user's own, scaled and run through at another speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras.optimizers import schedules


@keras.saving.register_keras_serializable(package="kerasbn")
class ScaledSchedule(schedules.LearningRateSchedule):
    """The learning rates of another schedule times a constant, run through faster or slower.

    Args:
        schedule: A `LearningRateSchedule`, typically one of your own.
        scale: Positive float, what each learning rate is multiplied by. Defaults to `1.0`.
        speedup: Positive float, how many steps of `schedule` go by in one step. Defaults to `1.0`.
    """

    def __init__(self, schedule: schedules.LearningRateSchedule, scale: float = 1.0, speedup: float = 1.0) -> None:
        self.schedule = schedule
        self.scale = float(scale)
        self.speedup = float(speedup)

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        if self.speedup != 1.0:
            step = keras.ops.cast(step, "float32") * self.speedup
        return self.schedule(step) * self.scale

    def get_config(self) -> dict[str, Any]:
        """The arguments, serialized."""
        return {"schedule": schedules.serialize(self.schedule), "scale": self.scale, "speedup": self.speedup}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ScaledSchedule:
        """The inverse of `get_config`."""
        schedule = config["schedule"]
        live = schedules.deserialize(schedule) if isinstance(schedule, dict) else schedule
        return cls(**{**config, "schedule": live})
