"""Layers: what they hold, and what they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras.src.applications import convnext, inception_resnet_v2
from keras.src.saving.serialization_lib import SafeModeScope


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that a layer holds by itself, not in a layer inside it."""
    inside = {id(variable) for each in sublayers(layer)[1:] for variable in each.variables}
    return [variable for variable in layer.variables if id(variable) not in inside]


def carry_rematerialization(source: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Have a layer keep or recompute its activations as another does: a `RematScope`'s mark, `Layer._remat_mode`."""
    layer._remat_mode = source._remat_mode


def is_lookup(layer: keras.layers.Layer) -> bool:
    """Whether a layer is one of Keras's that look up a vocabulary, which it needs before it can be called."""
    return is_keras_own(type(layer)) and hasattr(type(layer), "save_assets")


def carry_weights_of_terms(source: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Give a lookup what another one multiplies by in tf-idf, which is in no Keras variable."""
    weights: dict[str, Any] = {}
    source.save_own_variables(weights)
    layer.load_own_variables(weights)


def shares(layer: keras.layers.Layer, own: keras.Variable, other: keras.Variable) -> bool:
    """Have a built layer use another variable in the place of one of its own; whether that could be done.

    By the attributes of the layer and of what it holds, among them Keras's lists `_trainable_variables`.
    """
    for holder in sublayers(layer):
        for name, value in list(vars(holder).items()):
            if value is own:
                vars(holder)[name] = other
            elif isinstance(value, list):
                value[:] = [other if each is own else each for each in value]
    return all(variable is not own for variable in layer.variables)


def is_keras_own(kind: type) -> bool:
    """Whether a class is one of Keras's."""
    return kind.__module__.partition(".")[0] == "keras"


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all that it holds, itself first."""
    return list(layer._flatten_layers())


def held_by(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """What a layer holds itself, in the order in which it came, by `Layer._layers`."""
    return list(layer._layers)


def paths_inside(layer: keras.layers.Layer) -> dict[keras.layers.Layer, str]:
    """The path of a layer and of all that it holds, in that layer: `"forward_gru/gru_cell"`, its own is `""`.

    Of several the shortest. No two have one path: a further one of a name gets a number.
    """
    found = {layer: ""}
    taken = {""}
    waiting = [(layer, "")]
    for holder, prefix in waiting:  # which grows on the way
        for each in held_by(holder):
            if each not in found:
                names = itertools.chain([each.name], (f"{each.name}_{number}" for number in itertools.count(1)))
                path = next(path for path in map(prefix.__add__, names) if path not in taken)
                found[each] = path
                taken.add(path)
                waiting.append((each, f"{path}/"))
    return found


def set_own_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Set a layer's or model's flag without those of its weights and layers, as `Layer.trainable` would."""
    layer._trainable = value


def set_class(layer: keras.layers.Layer, kind: type[keras.layers.Layer], attributes: Mapping[str, Any]) -> None:
    """Have a layer be of a subclass of its class that has more attributes, past `Layer.__setattr__`."""
    object.__setattr__(layer, "__class__", kind)
    for name, value in attributes.items():
        object.__setattr__(layer, name, value)


def set_class_back(layer: keras.layers.Layer, kind: type[keras.layers.Layer], attributes: Iterable[str]) -> None:
    """Undo `set_class`."""
    for name in attributes:
        object.__delattr__(layer, name)
    object.__setattr__(layer, "__class__", kind)


def in_memory_code_allowed() -> Any:
    """A context in which layers with code in them (Lambda) can be made again: that code runs already."""
    return SafeModeScope(safe_mode=False)


def live_argument(layer: keras.layers.Layer, name: str) -> Any:
    """The function or object that a layer was given as an argument; `None` if none, or kept elsewhere.

    Some layers keep theirs in a private attribute: `MultiHeadAttention._kernel_initializer`.
    """
    candidates = (getattr(layer, attribute, None) for attribute in (name, f"_{name}"))
    return next(filter(callable, candidates), None)


def is_keras_object(value: Any) -> bool:
    """Whether something is of one of Keras's classes, or of one that was made from them."""
    return any(map(is_keras_own, type(value).__mro__))


def layer_of_applications(name: str) -> Any:
    """A class of layers that only networks of `keras.applications` have; `None` if there is none of that name."""
    found = (convnext.LayerScale, convnext.StochasticDepth, inception_resnet_v2.CustomScaleLayer)
    return {kind.__name__: kind for kind in found}.get(name)
