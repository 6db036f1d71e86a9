"""Architectures in JSON, of Keras 2 and of TensorFlow.js, and their weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasbn.errors import ModelFileError
from kerasbn.loading.contents import Contents, Weight, Weights
from kerasbn.loading.hdf5 import groups_of, layers_of


def content_of(path: Path) -> dict[str, Any]:
    """What a file says.

    Raises:
        ModelFileError: if that is no model's architecture.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(found, str):  # the outcome of `to_json`, written with `json.dump`
        found = json.loads(found)
    if isinstance(found, dict) and found.get("format") == "graph-model":
        raise ModelFileError(
            "it is a graph model of TensorFlow.js, whose layers are gone. Convert the Keras model as a layers model"
        )
    if not isinstance(found, dict) or not ({"modelTopology", "class_name"} & found.keys()):
        raise ModelFileError("it is no architecture of a model. Write one with model.to_json()")
    return found


def is_of_keras_3(content: Mapping[str, Any]) -> bool:
    """Whether an architecture is one of Keras 3's."""
    return "module" in content and not str(content.get("keras_version", "3")).startswith("2")


def of_tensorflow_js(path: Path, content: Mapping[str, Any]) -> Contents:
    """What TensorFlow.js's `model.json` and its shards hold."""
    topology = content["modelTopology"]
    config = topology.get("model_config", topology)
    training = content.get("trainingConfig") or topology.get("training_config")
    return Contents(config, list(_shards(path.parent, content["weightsManifest"])), training)


def weights_of(path: Path) -> Weights:
    """The weights in an HDF5 file, in each of the orders that Keras 2 writes them in."""
    import h5py

    with h5py.File(path, "r") as file:
        group = file.get("model_weights", file)
        if {"layer_names", "layer_names0"} & group.attrs.keys():
            return layers_of(group)
        return groups_of(file)


def shards_of(path: Path, content: Mapping[str, Any]) -> list[Path]:
    """The files beside a `model.json` that hold its weights.

    Raises:
        ModelFileError: if one of them is elsewhere, or missing.
    """
    folder, found = path.parent, []
    for group in content["weightsManifest"]:
        for name in group["paths"]:
            shard = folder / name
            if Path(name).name != name or shard.resolve().parent != folder.resolve():
                raise ModelFileError(f"its weights {name!r} are not beside it")
            if not shard.is_file():
                raise ModelFileError(f"its weights {name!r} are missing beside it")
            found.append(shard)
    return found


def _shards(folder: Path, manifest: Sequence[Mapping[str, Any]]) -> Iterator[Weight]:
    for group in manifest:
        content = b"".join((folder / name).read_bytes() for name in group["paths"])
        at = 0
        for spec in group["weights"]:
            stored = spec.get("quantization", {}).get("dtype", spec["dtype"])
            if stored not in ("float32", "float16", "int32", "uint8", "uint16", "bool"):
                raise ModelFileError(f"its weight {spec['name']!r} is of the type {stored!r}, which is not read")
            size = math.prod(spec["shape"]) * np.dtype(stored).itemsize
            if at + size > len(content):
                raise ModelFileError(f"its weights end ahead of {spec['name']!r}: they are cut short")
            array = np.frombuffer(content[at : at + size], np.dtype(stored).newbyteorder("<")).reshape(spec["shape"])
            at += size
            yield Weight(spec["name"], _restored(array, spec))


def _restored(array: np.ndarray[Any, Any], spec: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """What was quantized, in its own type."""
    quantization = spec.get("quantization")
    if quantization is None or quantization["dtype"] == "float16":
        return array.astype(spec["dtype"])
    values = array.astype("float32") * np.float32(quantization["scale"]) + np.float32(quantization["min"])
    return (values if spec["dtype"].startswith("float") else np.rint(values)).astype(spec["dtype"])
