"""Weights as files of Keras 2 hold them, into models of Keras 3."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import ModelFileError
from kerasbn.loading.configs import class_of, group_name, spelled
from kerasbn.loading.contents import Group, Weight, Weights

_CALLED_OTHERWISE = {"depthwise_kernel": "kernel"}
DEPENDENCIES = "_layer_checkpoint_dependencies"
"""What Keras 2.12 calls a model's layers; it counts those with weights twice."""


def fill(model: keras.Model, weights: Weights, config: Mapping[str, Any]) -> None:
    """Give a model its weights.

    Args:
        model: The model.
        weights: What the file holds.
        config: The model's class and config, as the file has them.

    Raises:
        ModelFileError: if they are not those of the model, with the name of the layer.
    """
    if isinstance(weights, Group):
        _Grouped(model, weights, config).fill()
    elif isinstance(weights, Mapping):
        _by_layer(model, weights)
    else:
        _in_a_row(model, weights)
    for layer in _keras.sublayers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def ordered(layer: keras.layers.Layer) -> list[keras.Variable]:
    """A layer's weights in the order of Keras 2's files."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _by_layer(model: keras.Model, weights: Mapping[str, Sequence[Weight]]) -> None:
    layers = {layer.name: layer for layer in model.layers}
    found = {spelled(name): values for name, values in weights.items()}
    for name, values in found.items():
        if values and name not in layers:
            raise ModelFileError(f"it has weights of a layer {name!r}, and no such layer")
    for name, layer in layers.items():
        _fill(name, ordered(layer), found.get(name, ()))


def _in_a_row(model: keras.Model, weights: Sequence[Weight]) -> None:
    """All weights one after another: layer by layer, or first all that is trained and then the rest.

    In the second order they come where JavaScript saved them. Names and shapes tell which it is.
    """
    by_layer = [variable for layer in model.layers for variable in ordered(layer)]
    orders = [by_layer]
    if any(one is not other for one, other in zip(by_layer, ordered(model), strict=False)):
        orders.append(ordered(model))
    for is_alike in (_is_of_layer, _is_alike):
        fitting = [each for each in orders if len(each) == len(weights) and all(map(is_alike, each, weights))]
        if len(fitting) == 1:
            for variable, weight in zip(fitting[0], weights, strict=True):
                set_weight(variable, weight.value, "the model")
            return
    at = 0
    for layer in model.layers:
        own = ordered(layer)
        _fill(layer.name, own, weights[at : at + len(own)])
        at += len(own)
    raise ModelFileError(f"it has {len(weights)} weights, which are not in an order of the model's {at}")


def _is_of_layer(variable: keras.Variable, weight: Weight) -> bool:
    """Whether a weight is called as if it were this one of that layer."""
    named = any(spelled(weight.name).startswith(f"{part}_") for part in variable.path.split("/")[:-1])
    return named and _is_alike(variable, weight)


def _is_alike(variable: keras.Variable, weight: Weight) -> bool:
    return _is_called(variable, weight.name) and tuple(variable.shape) == weight.value.shape


def _is_called(variable: keras.Variable, name: str) -> bool:
    """Whether this may be what a weight is called, past the names of layers; those without a name are variables."""
    own, last = _last(variable.path).lower(), _last(name).lower()
    return last in ("", own) or "variable" in (last, own) or _CALLED_OTHERWISE.get(last) == own


def _fill(layer: str, variables: Sequence[keras.Variable], values: Sequence[Weight]) -> None:
    if len(variables) != len(values):
        raise ModelFileError(f"layer {layer!r} has {len(variables)} weights, and there are {len(values)} in the file")
    for variable, weight in _matched(variables, values):
        if not _is_called(variable, weight.name):
            raise ModelFileError(f"layer {layer!r} has no weight {weight.name!r} where the file has it")
        set_weight(variable, weight.value, f"layer {layer!r}")


def _matched(variables: Sequence[keras.Variable], values: Sequence[Weight]) -> Iterator[tuple[keras.Variable, Weight]]:
    """By name where names tell all apart, else by order."""
    by_key = {_key(weight.name): weight for weight in values}
    keys = [_key(variable.path) for variable in variables]
    if len(by_key) == len(values) and set(keys) == by_key.keys() and len(set(keys)) == len(keys):
        return ((variable, by_key[key]) for variable, key in zip(variables, keys, strict=True))
    return zip(variables, values, strict=True)


def _key(name: str) -> tuple[str, ...]:
    parts = name.partition(":")[0].split("/")
    return (*parts[-2:-1], _last(name))


def _last(name: str) -> str:
    """What a weight is called in its layer, without a number that tells it from others."""
    return re.sub(r"_\d+$", "", name.partition(":")[0].rpartition("/")[2])


def set_weight(variable: keras.Variable, value: np.ndarray[Any, Any], where: str) -> None:
    """Give a variable its value.

    Raises:
        ModelFileError: if their shapes differ.
    """
    check_shape(variable, value, where)
    _keras.set_value(variable, value)


def check_shape(variable: keras.Variable, value: np.ndarray[Any, Any], where: str) -> None:
    """See that a variable can be given a value.

    Raises:
        ModelFileError: if their shapes differ.
    """
    if tuple(variable.shape) != value.shape:
        raise ModelFileError(
            f"{where} has a weight {variable.path!r} of shape {tuple(variable.shape)}, and in the file it has "
            f"{value.shape}"
        )


class _Grouped:
    """Weights by the attributes that hold them, and in models by the classes of their layers."""

    def __init__(self, model: keras.Model, group: Group, config: Mapping[str, Any]) -> None:
        self._model = model
        self._group = group
        self._config = config
        self._found: dict[str, tuple[Group, Mapping[str, Any]]] = {}

    def fill(self) -> None:
        self._models(self._model, self._group, self._config)

    def _models(self, model: keras.Model, group: Group, entry: Mapping[str, Any]) -> None:
        counts: Counter[str] = Counter()
        by_dependency = group.inside.get(DEPENDENCIES)
        held = (by_dependency or group.inside.get("layers", Group((), {}))).inside
        layers = {layer.name: layer for layer in model.layers}
        for each in _layers_of(entry):
            kind, name = group_name(class_of(each)), str(each["config"]["name"])
            number = counts[kind]
            layer = layers.get(spelled(name))
            counts[kind] += 2 if by_dependency and layer is not None and layer.weights else 1
            key = f"{kind}_{number}" if number else kind
            if layer is None or not layer.weights:
                continue
            self._layer(layer, held.get(key, Group((), {})), each)

    def _layer(self, layer: keras.layers.Layer, group: Group, entry: Mapping[str, Any]) -> None:
        if not _is_filled(group):  # Keras 2 writes what is shared once
            if layer.name not in self._found:
                raise ModelFileError(f"layer {layer.name!r} has {len(layer.weights)} weights, and none in the file")
            group, entry = self._found[layer.name]
        self._found.setdefault(layer.name, (group, entry))
        if isinstance(layer, keras.Model):
            self._models(layer, group, entry)
        else:
            self._attributes(layer, group, entry, f"layer {layer.name!r}")

    def _attributes(self, layer: Any, group: Group, entry: Mapping[str, Any], where: str) -> None:
        own = [each for each in _keras.own_variables(layer) if any(each is weight for weight in layer.weights)]
        _fill(layer.name, own, [Weight("", value) for value in group.own])
        taken = 0
        for name, inside in group.inside.items():
            if not _is_filled(inside):
                continue
            held = _attribute(layer, name)
            if isinstance(held, list | tuple):
                held = dict(zip(_numbered(group_name(type(each).__name__) for each in held), held, strict=True))
                for key, each in held.items():
                    self._attributes(each, inside.inside.get(key, Group((), {})), {}, where)
                    taken += len(each.weights)
            elif isinstance(held, keras.layers.Layer):
                taken += len(held.weights)
                config = entry.get("config", {}).get(name, {})
                if isinstance(held, keras.Model):
                    self._models(held, inside, config)
                else:
                    self._attributes(held, inside, config, where)
            else:
                raise ModelFileError(f"{where} holds nothing that is called {name!r} in the file")
        if len(own) + taken != len(layer.weights):
            raise ModelFileError(f"{where} has {len(layer.weights)} weights, and {len(own) + taken} in the file")


def _layers_of(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of a model's layers as Keras 2 counted them: in a Sequential without its input."""
    layers = list(entry["config"]["layers"])
    if class_of(entry) == "Sequential":
        return [each for each in layers if class_of(each) != "InputLayer"]
    return layers


def _is_filled(group: Group) -> bool:
    return bool(group.own) or any(map(_is_filled, group.inside.values()))


def _attribute(layer: Any, name: str) -> Any:
    return (
        getattr(layer, name, None) or getattr(layer, name.removeprefix("_"), None) or getattr(layer, f"_{name}", None)
    )


def _numbered(names: Iterator[str]) -> list[str]:
    counts: Counter[str] = Counter()
    found = []
    for name in names:
        found.append(f"{name}_{counts[name]}" if counts[name] else name)
        counts[name] += 1
    return found
