"""The state behind random numbers."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR


def global_seed_variables() -> list[keras.Variable]:
    """The state of the seed generator for random operations that have none of their own."""
    generator = get_global_attribute(GLOBAL_SEED_GENERATOR)
    return [] if generator is None else [generator.state]


def is_seed(variable: Any) -> bool:
    """Whether a variable is the state of a generator of random numbers."""
    return isinstance(variable, keras.Variable) and variable.name == "seed_generator_state"
