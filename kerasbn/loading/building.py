"""Models of Keras 2 from their configs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import KerasBNError, ModelFileError
from kerasbn.loading.causes import cause, missing
from kerasbn.loading.configs import class_of, cleaned, plain, policy, spelled
from kerasbn.loading.operations import operation_named
from kerasbn.loading.safety import check_name

_HELD: Mapping[str, tuple[str, ...]] = {
    "Bidirectional": ("layer", "backward_layer"),
    "TimeDistributed": ("layer",),
    "RNN": ("cell",),
    "StackedRNNCells": ("cells",),
}
"""The arguments of layers that are layers themselves."""

_MODELS = ("Functional", "Model", "Sequential")
_LOOKUPS = ("IntegerLookup", "StringLookup", "TextVectorization")
_CALLED_FUNCTIONS = ("TFOpLambda", "SlicingOpLambda")
_CONSTANT = "_CONSTANT_VALUE"


class Builder:
    """Makes Keras 3's layers and models of what a file of Keras 2 says of them.

    Attributes:
        operations: The functions of TensorFlow's that are operations of Keras 3 now, by the names of their calls.
    """

    def __init__(
        self, custom_objects: Mapping[str, Any], *, safe: bool, vocabularies: Mapping[str, Sequence[str]]
    ) -> None:
        self._custom_objects = custom_objects
        self._safe = safe
        self._vocabularies = vocabularies
        self.operations: list[str] = []

    def model(self, entry: Mapping[str, Any]) -> keras.Model:
        """A model from its class and config.

        Raises:
            ModelFileError: if it names what is not there, or what is not to be run.
        """
        model = self._layer(plain(entry))
        if not isinstance(model, keras.Model):
            raise ModelFileError(f"it holds a single layer, {model.name!r}, and no model")
        return model

    def _layer(self, entry: Mapping[str, Any]) -> keras.layers.Layer:
        kind, config = class_of(entry), dict(entry["config"])
        if "name" in config:
            config["name"] = spelled(config["name"])
        where = f"{'model' if kind in _MODELS else 'layer'} {config.get('name', entry.get('name'))!r}"
        try:
            check_name(kind, where, safe=self._safe)
            custom = self._registered(entry, kind)
            if custom is not None:
                return custom.from_config(cleaned("", config, where)[1])
            if kind in _MODELS:
                return self._sequential(config) if kind == "Sequential" else self._functional(config)
            kind, config = cleaned(kind, config, where)
            return self._of_keras(kind, config, where)
        except KerasBNError:
            raise
        except Exception as error:
            raise ModelFileError(f"{where} ({kind}) cannot be made: {cause(error)}") from error

    def _registered(self, entry: Mapping[str, Any], kind: str) -> Any:
        names = [entry.get("registered_name"), entry["class_name"], kind]
        found = (keras.saving.get_registered_object(str(name), self._custom_objects) for name in names if name)
        return next((each for each in found if each is not None), None)

    def _of_keras(self, kind: str, config: dict[str, Any], where: str) -> keras.layers.Layer:
        held = _HELD.get(kind, ())
        made = {key: self._held(config[key]) for key in held if config.get(key) is not None}
        found: Any = getattr(keras.layers, kind, None) or _keras.layer_of_applications(kind)
        if not _is_layer(found):
            raise ModelFileError(f"{where} is of {missing(kind)}")
        trainable = config.pop("trainable", True)  # not every layer takes it
        if kind in _LOOKUPS:
            self._give_words(kind, config, where)
        if kind == "Lambda":
            config = _code(config)
        allowed = contextlib.nullcontext() if self._safe else _keras.in_memory_code_allowed()
        with keras.saving.CustomObjectScope(dict(self._custom_objects)), allowed:
            if made:
                layer = found(**{**{key: value for key, value in config.items() if key not in held}, **made})
            else:
                layer = found.from_config(config)
        if not trainable:
            layer.trainable = False
        return layer

    def _give_words(self, kind: str, config: dict[str, Any], where: str) -> None:
        words = self._vocabularies.get(config["name"])
        if words:
            config["vocabulary"] = [int(word) for word in words] if kind == "IntegerLookup" else list(words)
        if config.get("vocabulary") is None or (
            config.get("output_mode") == "tf_idf" and not config.get("idf_weights")
        ):
            raise ModelFileError(
                f"{where} ({kind}) has learnt a vocabulary that this kind of file keeps where it is not read. Save the "
                "model as .keras with Keras 2, without output_mode='tf_idf'"
            )

    def _held(self, value: Any) -> Any:
        return [self._layer(each) for each in value] if isinstance(value, list) else self._layer(value)

    def _sequential(self, config: Mapping[str, Any]) -> keras.Model:
        entries = config["layers"]
        layers = [self._layer(entry) for entry in entries]
        shape = config.get("build_input_shape")
        if entries and not isinstance(layers[0], keras.layers.InputLayer | keras.Model):
            shape = entries[0]["config"].get("batch_input_shape", shape)
            if shape is not None:
                layers.insert(0, keras.layers.InputLayer(batch_shape=shape, dtype=_dtype_of(entries[0])))
        model = keras.Sequential(layers, name=config.get("name"))
        if not model.built and shape is not None:
            model.build(tuple(shape))
        return model

    def _functional(self, config: Mapping[str, Any]) -> keras.Model:
        graph = _Graph(self, config["layers"])
        inputs, outputs = graph.tensors(config["input_layers"]), graph.tensors(config["output_layers"])
        names = [spelled(each["name"]) for each in config["layers"]]
        _tell_apart(keras.tree.flatten(inputs), keras.tree.flatten(outputs), names)
        model = keras.Model(_single(inputs), _single(outputs), name=config.get("name"))
        if config.get("trainable") is False:
            _keras.set_own_trainable(model, False)
        return model


def _is_layer(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, keras.layers.Layer)


def _code(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a Lambda in the form of Keras 3."""
    of_keras_2 = ("function_type", "module", "output_shape_type", "output_shape_module")
    found = {key: value for key, value in config.items() if key not in of_keras_2}
    if isinstance(function := found["function"], list):
        code = dict(zip(("code", "defaults", "closure"), function, strict=True))
        found["function"] = {"class_name": "__lambda__", "config": code}
    return found


def _dtype_of(entry: Mapping[str, Any]) -> Any:
    dtype = policy(entry["config"].get("dtype"))
    return dtype if isinstance(dtype, str) and not dtype.startswith("mixed") else None


def _tell_apart(
    inputs: Sequence[keras.KerasTensor], outputs: Sequence[keras.KerasTensor], names: Iterable[str]
) -> None:
    """Rename operations that Keras has called as a layer in the file is called already."""
    taken = set(names)
    for operation in dict.fromkeys(call.operation for call in _keras.calls_between(inputs, outputs)):
        if not isinstance(operation, keras.layers.Layer):
            numbered = (f"{operation.name}_{number}" for number in itertools.count(1))
            operation.name = next(name for name in itertools.chain([operation.name], numbered) if name not in taken)
            taken.add(operation.name)


def _single(tensors: Any) -> Any:
    return tensors[0] if isinstance(tensors, list) and len(tensors) == 1 else tensors


class _Graph:
    """The calls of a functional model, made one after another."""

    def __init__(self, builder: Builder, entries: Sequence[Mapping[str, Any]]) -> None:
        self._builder = builder
        self._outputs: dict[tuple[str, int], list[Any]] = {}
        self._unmade: list[tuple[str, int, Any, Any]] = []
        for entry in entries:
            self._add(entry)
        while self._unmade:
            waiting, self._unmade = self._unmade, []
            for call in waiting:
                if not self._make(*call):
                    self._unmade.append(call)
            if len(self._unmade) == len(waiting):
                names = ", ".join(repr(name) for name, *_ in waiting[:3])
                raise ModelFileError(f"its layers {names} are never reached from its inputs")

    def _add(self, entry: Mapping[str, Any]) -> None:
        name, kind = entry["name"], class_of(entry)
        if kind in _CALLED_FUNCTIONS:
            function = entry["config"]["function"]
            operation = operation_named(function)
            if operation is None:
                raise ModelFileError(
                    f"layer {name!r} calls tf.{function}, which kerasbn does not know in Keras 3. Make it a layer of "
                    "your own in the code of the model"
                )
            self._builder.operations.append(name)
            callee: Any = operation
        else:
            callee = self._builder._layer(entry)
        if isinstance(callee, keras.layers.InputLayer):
            self._outputs[name, 0] = [callee.output]
        first = 1 if kind in _MODELS and _has_input(entry) else 0  # the call that made a model counts
        self._unmade += [(name, first + index, callee, node) for index, node in enumerate(entry["inbound_nodes"])]

    def _make(self, name: str, index: int, callee: Any, node: Any) -> bool:
        """Whether a call could be made."""
        try:
            args, kwargs = self._arguments(node)
        except KeyError:
            return False
        if not any(isinstance(each, keras.KerasTensor) for each in keras.tree.flatten((args, kwargs))):
            raise ModelFileError(f"layer {name!r} is called on nothing that comes from the inputs")
        try:
            output = _called(callee, args, kwargs)
        except Exception as error:
            raise ModelFileError(f"layer {name!r} cannot be called: {cause(error)}") from error
        self._outputs[name, index] = keras.tree.flatten(output)
        return True

    def _arguments(self, node: Any) -> tuple[list[Any], dict[str, Any]]:
        """What a call gets: one structure, with what belongs to it by name in each of its leaves."""
        kwargs: dict[str, Any] = {}

        def leaf(value: Any) -> Any:
            if _is_leaf(value):
                kwargs.update(value[3] if len(value) > 3 else {})
                return value[2] if value[0] == _CONSTANT else self._outputs[value[0], value[1]][value[2]]
            if isinstance(value, dict):
                return {key: leaf(each) for key, each in value.items()}
            return [leaf(each) for each in value]

        first = leaf(node)
        first = first[0] if not _is_leaf(node) and isinstance(first, list) and len(first) == 1 else first
        return [first], {key: self._filled(value) for key, value in kwargs.items()}

    def _filled(self, value: Any) -> Any:
        """An argument, with the tensors that it refers to."""
        if _is_reference(value) and any(value[0] == name for name, _ in self._names()):
            return self._outputs[value[0], value[1]][value[2]]
        if isinstance(value, dict):
            return {key: self._filled(each) for key, each in value.items()}
        return [self._filled(each) for each in value] if isinstance(value, list) else value

    def _names(self) -> Iterator[tuple[str, int]]:
        yield from self._outputs
        yield from ((name, index) for name, index, *_ in self._unmade)

    def tensors(self, references: Any) -> Any:
        """The tensors that a structure of references stands for."""
        if _is_reference(references):
            return self._outputs[references[0], references[1]][references[2]]
        if isinstance(references, dict):
            return {key: self.tensors(each) for key, each in references.items()}
        return [self.tensors(each) for each in references]


def _has_input(entry: Mapping[str, Any]) -> bool:
    layers = entry["config"].get("layers") or [{"class_name": ""}]
    return class_of(entry) != "Sequential" or class_of(layers[0]) == "InputLayer"


def _is_leaf(value: Any) -> bool:
    return isinstance(value, list) and 3 <= len(value) <= 4 and isinstance(value[0], str) and isinstance(value[1], int)


def _is_reference(value: Any) -> bool:
    return _is_leaf(value) and len(value) == 3 and isinstance(value[2], int)


def _called(callee: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if not isinstance(callee, keras.layers.Layer):
        return callee(*args, **kwargs)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    takes_states = isinstance(callee, keras.layers.RNN | keras.layers.Bidirectional)
    if takes_states and isinstance(args[0], list) and "initial_state" not in kwargs:
        return callee(args[0][0], initial_state=args[0][1:], **kwargs)
    return callee(*args, **kwargs)
