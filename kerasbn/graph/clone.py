"""New layers from old ones: configuration, weights, and the state that is neither."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError, quoted
from kerasbn.graph.model import LayerSpec

_WRAPPED: Mapping[type, Mapping[str, str]] = {
    keras.layers.TimeDistributed: {"layer": "layer"},
    keras.layers.Bidirectional: {"layer": "forward_layer", "backward_layer": "backward_layer"},
}
"""Keras's wrappers: the arguments that are layers, with the attributes that hold them."""

_MADE_OF_LIVE_OBJECTS = (*_WRAPPED, keras.layers.Lambda)
"""Layers whose `from_config` takes no layers or functions, but their configurations; the constructor does."""

_OF_EVERY_LAYER = ("name", "trainable", "dtype")
_LIVE_SUFFIXES = ("activation", "_initializer", "_regularizer", "_constraint")


def constructor_arguments(layer: keras.layers.Layer) -> dict[str, Any]:
    """A layer's configuration, with its functions and other stateless helpers as live objects.

    Serialized and back, an unregistered activation function would be lost. A class with a
    `from_config` of its own gets what its `get_config` gives. What Keras's wrappers hold is a
    spec of its own.
    """
    config = dict(layer.get_config())
    for argument, attribute in _WRAPPED.get(type(layer), {}).items():
        wrapped = getattr(layer, attribute)
        config[argument] = LayerSpec(type(wrapped), constructor_arguments(wrapped))
    if type(layer) in _WRAPPED:
        return config
    if type(layer) is keras.layers.Lambda:  # its code, serialized and back, would lose the names that it knows
        lives = {name: _keras.live_argument(layer, name) for name in ("function", "output_shape", "mask")}
        return {**config, **{name: live for name, live in lives.items() if live}, "arguments": layer.arguments}
    if not type(layer).from_config.__func__.__module__.startswith("keras."):
        return config
    for key in config:
        if key.endswith(_LIVE_SUFFIXES) and (live := _keras.live_argument(layer, key)) is not None:
            config[key] = live
    return config


def spec_of(layer: keras.layers.Layer, **changes: Any) -> LayerSpec:
    """A spec for this very layer with some of its configuration changed."""
    return LayerSpec(type(layer), constructor_arguments(layer), origin=layer).with_config(**changes)


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
    take_names_and_policies(layer, twin)
    return twin


def make(spec: LayerSpec) -> keras.layers.Layer:
    """The layer that a spec describes."""
    if spec.cls in _MADE_OF_LIVE_OBJECTS:
        return spec.cls(**{**spec.config, **{argument: make(inner) for argument, inner in spec.wrapped.items()}})
    return revived(spec.cls, spec.config)


def revived(cls: Any, config: Mapping[str, Any]) -> Any:
    """A layer or model from its configuration.

    Keras's `get_config` tells of every layer its name, dtype and whether it is trainable, also where
    the constructor takes none of them.
    """
    try:
        return cls.from_config(dict(config))
    except TypeError:
        taken = inspect.signature(cls).parameters
        fitting = {key: value for key, value in config.items() if key in taken or key not in _OF_EVERY_LAYER}
        if len(fitting) == len(config):
            raise
        return cls.from_config(fitting)


def weight_pairs(source: keras.layers.Layer, twin: keras.layers.Layer) -> Iterator[tuple[keras.Variable, Any]]:
    """Each variable of a clone, with the one of its source that it takes its value from.

    Raises:
        UnsupportedModelError: if the two do not hold the same variables in the same order.
    """
    ours, theirs = twin.variables, source.variables
    if [_signature(variable) for variable in ours] != [_signature(variable) for variable in theirs]:
        raise UnsupportedModelError(
            f"Layer {source.name!r} ({type(source).__name__}) rebuilt from its configuration has other weights: "
            f"{[_signature(v) for v in ours]} where the model has {[_signature(v) for v in theirs]}. "
            "Rewrite with copy=False, which reuses the layer as it is."
        )
    yield from zip(ours, theirs, strict=True)


def initial_values(spec: LayerSpec, layer: keras.layers.Layer) -> Iterator[tuple[keras.Variable, Any]]:
    """Each variable of a new layer that starts from a given value, with that value.

    Raises:
        UnsupportedModelError: if the layer has a variable that the one which it is made from has not.
    """
    origin = spec.origin
    inherited = {} if origin is None else _by_place(origin)
    for place, variable in _by_place(layer).items():
        if variable.name in spec.values:
            yield variable, spec.values[variable.name]()
        elif place in inherited:
            yield variable, inherited[place]
        elif origin is not None:
            raise UnsupportedModelError(
                f"Layer {origin.name!r} ({type(origin).__name__}), made again with another config, has a weight "
                f"{variable.name!r} that the one in the model lacks. Leave out the option that changes the layer, or "
                "give it a get_config that tells of its weights."
            )


def float_policy(layer: keras.layers.Layer) -> keras.DTypePolicy:
    """The dtype policy for a layer made to stand beside this one: the same, less any quantization."""
    policy = layer.dtype_policy
    if policy.quantization_mode:
        return keras.DTypePolicy(policy.name.rpartition("_from_")[2])
    return policy


def take_names_and_policies(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """Name a copy as its source, and let it compute in the same dtypes; what it holds as well.

    A configuration need not tell of either. Of what a layer makes only when it is built, nothing is known yet.
    """
    ours, theirs = list(_keras.sublayers(twin)), list(_keras.sublayers(source))
    if [type(layer) for layer in ours] != [type(layer) for layer in theirs]:
        ours, theirs = [twin], [source]
    for one, other in zip(ours, theirs, strict=True):
        one.name = other.name
        if one.dtype_policy != other.dtype_policy:
            one.dtype_policy = other.dtype_policy


def copy_trainable(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """Carry over which sublayers are frozen; a configuration tells it of the outermost layer alone."""
    for theirs, ours in zip(_keras.sublayers(source), _keras.sublayers(twin), strict=False):
        if ours.trainable != theirs.trainable:
            ours.trainable = theirs.trainable


def copy_hidden_state(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """Carry over what a layer keeps outside its variables: vocabularies, cached statistics."""
    if hasattr(type(source), "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            twin.load_assets(folder)
    elif hasattr(twin, "finalize_state"):
        twin.finalize_state()


def _by_place(layer: keras.layers.Layer) -> dict[tuple[int, str], keras.Variable]:
    """The variables of a layer by their place in it: which of its sublayers holds them, and their name there.

    Their paths do not tell: a layer may have been renamed since it made them.
    """
    holders = {id(variable): index for index, each in enumerate(_keras.sublayers(layer)) for variable in each.variables}
    return {(holders[id(variable)], variable.name): variable for variable in layer.variables}


def _signature(variable: keras.Variable) -> tuple[str, tuple[int, ...], str]:
    # Keras numbers the variables that were given no name, all of a process: "variable_36".
    return re.sub(r"_\d+$", "", variable.name), tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)
