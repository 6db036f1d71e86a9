"""Operations of Keras 3 in its `.h5` files, which Keras writes and does not find again.

A graph has them where `keras.ops` was called on its tensors, and where a mask was worked out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.loading.safety import entries


def operations_in(config: Any) -> dict[str, type]:
    """What stands for the operations that the config of a model names, by their names.

    An operation and a layer may have one name, such as `Add`. The config of a layer tells whether it is trained.
    """
    known = _keras.operation_classes()
    named = [entry for _, entry in entries(config, "the model") if _is_of_operation(entry)]
    return {name: _stand_in(known[name]) for entry in named if (name := entry["class_name"]) in known}


def _is_of_operation(entry: Mapping[str, Any]) -> bool:
    config = entry.get("config")
    return "inbound_nodes" in entry and isinstance(config, dict) and "trainable" not in config


def _stand_in(operation: type[keras.Operation]) -> type:
    """A class that makes the operation, or the layer of Keras's that has its name."""
    layer = getattr(keras.layers, operation.__name__, operation)

    def from_config(config: dict[str, Any]) -> Any:
        return (layer if "trainable" in config else operation).from_config(config)

    return type(operation.__name__, (), {"from_config": staticmethod(from_config)})
