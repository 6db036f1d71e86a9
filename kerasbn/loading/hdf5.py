"""`.h5` files of Keras 2."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasbn.errors import ModelFileError
from kerasbn.loading.contents import Contents, Group, Weight

if TYPE_CHECKING:
    import h5py


def version_of(file: h5py.File) -> str:
    """The version of Keras that wrote a file; early ones did not say."""
    given = file.attrs.get("keras_version")
    if given is None and "model_weights" in file:
        given = file["model_weights"].attrs.get("keras_version")
    return "2" if given is None else _text(given)


def read(path: Path, file: h5py.File) -> Contents:
    """What a file holds that a model was saved in."""
    if "model_config" not in file.attrs:
        raise ModelFileError(
            "No model config: it holds weights alone. Give the model's architecture as JSON and this file as its "
            f"weights: kerasbn.load('model.json', weights={path.name!r}), or --weights on the command line"
        )
    training = file.attrs.get("training_config")
    return Contents(
        json.loads(_text(file.attrs["model_config"])),
        layers_of(file["model_weights"]),
        None if training is None else json.loads(_text(training)),
        optimizer_of(file),
    )


def optimizer_of(file: h5py.File) -> list[Weight]:
    """What the optimizer of a model keeps; nothing if it was not saved."""
    return _weights(file["optimizer_weights"]) if "optimizer_weights" in file else []


def layers_of(group: h5py.Group) -> dict[str, list[Weight]]:
    """Weights by the names of layers."""
    if group.get("top_level_model_weights") is not None and _weights(group["top_level_model_weights"]):
        raise ModelFileError("its model has weights of its own, outside of its layers")
    return {name: _weights(group[name]) for name in _names(group, "layer_names")}


def groups_of(group: Any) -> Group:
    """Weights by attributes, as in `model.weights.h5`."""
    own = group.get("vars") or {}
    count = len(own)
    return Group(
        tuple(np.asarray(own[str(number)]) for number in range(count)),
        {name: groups_of(each) for name, each in group.items() if name != "vars" and not hasattr(each, "dtype")},
    )


def _weights(group: h5py.Group) -> list[Weight]:
    return [Weight(name.partition(":")[0], np.asarray(group[name])) for name in _names(group, "weight_names")]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list in an attribute, or in several where it is long."""
    if attribute in group.attrs:
        return [_text(each) for each in group.attrs[attribute]]
    parts = itertools.takewhile(group.attrs.__contains__, (f"{attribute}{number}" for number in itertools.count()))
    return [_text(each) for part in parts for each in group.attrs[part]]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
