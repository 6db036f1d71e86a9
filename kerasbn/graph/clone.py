"""New layers from old ones, by their configuration."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError, quoted
from kerasbn.graph.carry import carry_description
from kerasbn.graph.model import LayerSpec, core_of
from kerasbn.serializable import BatchNormalizedRNN

_WRAPPED: Mapping[type, Mapping[str, str]] = {
    keras.layers.TimeDistributed: {"layer": "layer"},
    keras.layers.Bidirectional: {"layer": "forward_layer", "backward_layer": "backward_layer"},
    BatchNormalizedRNN: {"rnn_layer": "rnn_layer"},
}
"""Wrappers: the arguments that are layers, with the attributes that hold them."""

_MADE_OF_LIVE_OBJECTS = (*_WRAPPED, keras.layers.Lambda)
"""Layers whose `from_config` takes no layers or functions, but their configurations; the constructor does."""

_OF_EVERY_LAYER = ("name", "trainable", "dtype")
_LIVE_SUFFIXES = ("activation", "_initializer", "_regularizer", "_constraint")


def constructor_arguments(layer: keras.layers.Layer) -> dict[str, Any]:
    """A layer's configuration, with its functions and other stateless helpers as live objects.

    Serialized and back, an unregistered activation function would be lost. A class with a
    `from_config` of its own gets what its `get_config` gives. What wrappers hold is a spec of its own.
    """
    if type(layer) is keras.layers.Identity:
        return identity_arguments(layer)
    config = dict(layer.get_config())
    for argument, wrapped in wrapped_by(layer).items():
        config[argument] = LayerSpec(type(wrapped), constructor_arguments(wrapped))
    if type(layer) is BatchNormalizedRNN:
        return {**config, "norm": list(layer.norms)}
    if type(layer) in _WRAPPED:
        return config
    if type(layer) is keras.layers.Lambda:  # its code, serialized and back, would lose the names that it knows
        lives = {name: _keras.live_argument(layer, name) for name in ("function", "output_shape", "mask")}
        return {**config, **{name: live for name, live in lives.items() if live}, "arguments": layer.arguments}
    if not type(layer).from_config.__func__.__module__.startswith("keras."):
        return config
    for key in config:
        if key.endswith(_LIVE_SUFFIXES) and (live := _keras.live_argument(layer, key)) is not None:
            config[key] = clone(live) if isinstance(live, keras.layers.Layer) else live
    return config


def wrapped_by(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """The layers that a wrapper is made from, by argument; none for other layers."""
    return {argument: getattr(layer, attribute) for argument, attribute in _WRAPPED.get(type(layer), {}).items()}


def identity_arguments(layer: keras.layers.Layer) -> dict[str, Any]:
    """The arguments for an `Identity` in a layer's place, its own included.

    It has no `get_config`: Keras saves what it was made with, if that is plain.
    """
    return {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy.name}


def spec_of(layer: keras.layers.Layer, **changes: Any) -> LayerSpec:
    """A spec for this very layer with some of its configuration changed."""
    return LayerSpec(type(layer), constructor_arguments(layer), origin=layer).with_config(**changes)


def inside(layer: Any, spec: LayerSpec) -> LayerSpec:
    """A layer to be in as many `TimeDistributed` as there are around another one."""
    if layer is core_of(layer):
        return spec
    return LayerSpec(type(layer), {**constructor_arguments(layer), "layer": inside(layer.layer, spec)})


def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer of the same class and configuration, with weights yet to come.

    Raises:
        UnsupportedModelError: if the layer cannot be rebuilt from its configuration.
    """
    try:
        with _keras.in_memory_code_allowed():
            twin = make(LayerSpec(type(layer), constructor_arguments(layer)))
    except Exception as error:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) cannot be rebuilt from its configuration: "
            f"{quoted(error)}. Give the class a get_config that its __init__ understands, or rewrite with "
            "copy=False, which reuses the layer as it is."
        ) from error
    if type(twin) is not type(layer):
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) comes back from its configuration as {twin!r}. "
            "Correct its from_config, or rewrite with copy=False."
        )
    if isinstance(told := vars(layer).get("get_config"), _ConfigWithout):
        twin.get_config = dataclasses.replace(told, layer=twin)
    carry_description(layer, twin)
    return twin


def make(spec: LayerSpec) -> keras.layers.Layer:
    """The layer that a spec describes, not frozen yet, for which see `kerasbn.graph.carry`."""
    config = {**spec.config, "trainable": True} if "trainable" in spec.config else spec.config
    if spec.cls in _MADE_OF_LIVE_OBJECTS:
        return spec.cls(**{**config, **{argument: make(inner) for argument, inner in spec.wrapped.items()}})
    return revived(spec.cls, config)


def made_from(spec: LayerSpec, layer: keras.layers.Layer) -> Iterator[tuple[LayerSpec, keras.layers.Layer]]:
    """A spec with the layer that was made from it, and behind it the like for what it wraps."""
    yield spec, layer
    for argument, inner in spec.wrapped.items():
        yield from made_from(inner, getattr(layer, _WRAPPED[spec.cls][argument]))


def revived(cls: Any, config: Mapping[str, Any]) -> Any:
    """A layer or model from its configuration.

    A configuration may hold more than the constructor takes: Keras's `get_config` tells of every layer
    its name, dtype and whether it is trainable, and some classes tell what they work out. The latter has
    to come back the same; the copy tells no more of it, so that a file with the copy loads.
    """
    try:
        # With containers of its own all the way down: `StackedRNNCells` takes its cells out of what it gets.
        return cls.from_config(keras.tree.map_structure(lambda leaf: leaf, dict(config)))
    except (TypeError, ValueError):
        taken = _parameters(cls)
        fitting = {key: value for key, value in config.items() if key in taken}
        if len(fitting) == len(config):
            raise
        twin = cls.from_config(fitting)
        told = twin.get_config()
        worked_out = config.keys() - taken - set(_OF_EVERY_LAYER)
        if any(told.get(key) != config[key] for key in worked_out):
            raise
        if worked_out:
            twin.get_config = _ConfigWithout(twin, frozenset(worked_out))
        return twin


@dataclasses.dataclass(frozen=True)
class _ConfigWithout:
    """The `get_config` of one layer, less what the constructor does not take."""

    layer: keras.layers.Layer
    keys: frozenset[str]

    def __call__(self) -> dict[str, Any]:
        config = type(self.layer).get_config(self.layer)
        return {key: value for key, value in config.items() if key not in self.keys}


def _parameters(cls: Any) -> set[str]:
    """The names of the arguments that a constructor takes, those that it hands on with `**kwargs` as well."""
    names: set[str] = set()
    for each in cls.__mro__:
        if "__init__" in vars(each):
            parameters = inspect.signature(each.__init__).parameters
            names.update(parameters)
            if inspect.Parameter.VAR_KEYWORD not in (parameter.kind for parameter in parameters.values()):
                break
    return names


def float_policy(layer: keras.layers.Layer) -> keras.DTypePolicy:
    """The dtype policy for a layer made to stand beside this one: the same, less any quantization."""
    policy = layer.dtype_policy
    if policy.quantization_mode:
        return keras.DTypePolicy(policy.name.rpartition("_from_")[2])
    return policy
