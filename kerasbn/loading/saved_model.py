"""Folders of SavedModels of Keras 2."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasbn.errors import ModelFileError
from kerasbn.loading.configs import class_of, plain
from kerasbn.loading.contents import Contents, Weight

_LOOKUPS = {"IntegerLookup", "StringLookup", "TextVectorization"}


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
    words = dict(_Tables(path / "saved_model.pb").words(config)) if _LOOKUPS & set(_classes(config)) else {}
    return Contents(config, weights, metadata.get("training_config"), checkpoint.optimizer(), words)


def _layers_of(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    layers = list(config["config"]["layers"])
    return [each for each in layers if class_of(config) != "Sequential" or class_of(each) != "InputLayer"]


def _classes(config: Mapping[str, Any]) -> Iterator[str]:
    """The names of the classes of a model's layers, and of those in models inside."""
    for each in config["config"]["layers"]:
        yield class_of(each)
        if "layers" in each["config"]:
            yield from _classes(each)


class _Tables:
    """What lookups look up: constants of the graph, which is not run for it."""

    def __init__(self, path: Path) -> None:
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        content = path.read_bytes()
        graph = SavedModel.FromString(content).meta_graphs[0]
        self._nodes = graph.object_graph_def.nodes
        self._constants = {node.name: node.attr["value"].tensor for node in graph.graph_def.node if node.op == "Const"}
        self._most = len(content)

    def words(self, config: Mapping[str, Any], node: int = 0) -> Iterator[tuple[str, list[Any]]]:
        """The words of each lookup by its name, in their order."""
        for number, each in enumerate(_layers_of(config)):
            layer = self._at(node, f"layer-{number}")
            if layer is None:
                continue
            if "layers" in each["config"]:
                yield from self.words(each, layer)
            elif class_of(each) in _LOOKUPS:
                inner = self._at(layer, "_lookup_layer")
                call = self._at(layer if inner is None else inner, "lookup_table", "_initialize", "trace_0")
                if call is not None:
                    arrays = [self._constant(self._at(call, f"capture_{index}")) for index in (1, 2)]
                    keys, values = arrays[::-1] if each["config"].get("invert") else arrays
                    ordered = [keys[at] for at in np.argsort(values)]
                    yield (
                        each["config"]["name"],
                        [word.decode() if isinstance(word, bytes) else int(word) for word in ordered],
                    )

    def _at(self, node: int, *names: str) -> int | None:
        """The object that is reached by attributes one after another."""
        found: int | None = node
        for name in names:
            children = () if found is None else self._nodes[found].children
            found = next((child.node_id for child in children if child.local_name == name), None)
        return found

    def _constant(self, node: int | None) -> Any:
        import tensorflow as tf

        if node is None:
            raise ModelFileError("the words of a lookup are not in its graph")
        tensor = self._constants[self._nodes[node].constant.operation]
        if math.prod(dimension.size for dimension in tensor.tensor_shape.dim) > self._most:
            raise ModelFileError("the words of a lookup are more than there is room for in its graph")
        return tf.make_ndarray(tensor)


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
