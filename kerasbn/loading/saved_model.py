"""Folders of SavedModels of Keras 2."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerasbn.errors import ModelFileError
from kerasbn.loading.configs import class_of, plain
from kerasbn.loading.contents import Contents, Weight


def read(path: Path) -> Contents:
    """What a folder holds: the model from Keras's metadata, the weights from the checkpoint.

    Raises:
        ModelFileError: if it is no Sequential or functional model.
    """
    metadata = _root(path / "keras_metadata.pb")
    config = metadata.get("model_config")
    if config is None:
        raise ModelFileError(
            f"its model is a subclass of keras.Model, {metadata.get('class_name')!r}, whose code is not in the file. "
            "Make it in Python, and load its weights"
        )
    config = plain(config)
    checkpoint = _Checkpoint(path / "variables" / "variables")
    names = [each["config"]["name"] for each in _layers_of(config)]
    weights = {name: checkpoint.weights_of(f"layer-{number}") for number, name in enumerate(names)}
    return Contents(config, weights, metadata.get("training_config"), checkpoint.optimizer())


def _layers_of(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    layers = list(config["config"]["layers"])
    return [each for each in layers if class_of(config) != "Sequential" or class_of(each) != "InputLayer"]


class _Checkpoint:
    """Variables by the objects that they are attributes of."""

    def __init__(self, prefix: Path) -> None:
        import tensorflow as tf
        from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

        self._reader = tf.train.load_checkpoint(str(prefix))
        graph = TrackableObjectGraph.FromString(self._reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        self._nodes = graph.nodes

    def weights_of(self, name: str) -> list[Weight]:
        """Those of an attribute of the model, which is a layer: first what is trained, then the rest."""
        layer = self._child(0, name)
        if layer is not None and self._child(layer, "variables") is None:  # those that are adapted have no lists
            own = {child.node_id for child in self._nodes[layer].children}
            return [self._weight(each) for each in self._listed(0, "variables") if each in own]
        trained = self._listed(layer, "trainable_variables")
        return [self._weight(each) for each in dict.fromkeys([*trained, *self._listed(layer, "variables")])]

    def optimizer(self) -> list[Weight]:
        """The variables of the optimizer."""
        optimizer = self._child(0, "optimizer")
        return [self._weight(each) for each in self._listed(optimizer, "_variables")]

    def _child(self, node: int | None, name: str) -> int | None:
        children = () if node is None else self._nodes[node].children
        return next((child.node_id for child in children if child.local_name == name), None)

    def _listed(self, node: int | None, name: str) -> list[int]:
        listed = self._child(node, name)
        children = [] if listed is None else list(self._nodes[listed].children)
        return [each.node_id for each in sorted(children, key=lambda each: int(each.local_name))]

    def _weight(self, node: int) -> Weight:
        for attribute in self._nodes[node].attributes:
            return Weight(attribute.full_name, self._reader.get_tensor(attribute.checkpoint_key))
        raise ModelFileError("its checkpoint has no value for a variable")


def _root(path: Path) -> dict[str, Any]:
    """What `keras_metadata.pb` says of the model as a whole: `SavedMetadata.nodes` whose `node_path` is `root`."""
    for number, node in _fields(path.read_bytes()):
        if number == 1 and isinstance(node, bytes):
            fields = dict(_fields(node))
            if fields.get(3) == b"root":
                found: dict[str, Any] = json.loads(fields[5])
                return found
    raise ModelFileError("its keras_metadata.pb says nothing of the model")


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer, by their numbers."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
            case 2:
                length, at = _varint(message, at)
                yield key >> 3, message[at : at + length]
                at += length
            case 1:
                at += 8
            case 5:
                at += 4
            case _:
                raise ModelFileError("its keras_metadata.pb is cut short")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise ModelFileError("its keras_metadata.pb is cut short")
