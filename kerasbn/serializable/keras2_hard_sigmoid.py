"""The `hard_sigmoid` of Keras 2, which is another function in Keras 3."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("kerasbn")  # type: ignore[untyped-decorator]
def keras2_hard_sigmoid(x: Any) -> Any:
    """`clip(0.2 * x + 0.5, 0, 1)`; the one of Keras 3 has a slope of a sixth."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
