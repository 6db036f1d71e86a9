"""What comes along from a layer to the one that takes its place, besides its configuration.

description   names, dtype policies     at once: the layer is built with them
state         weights, what is frozen,  once it is built
              attributes set on its
              variables, tables
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.graph.model import LayerSpec


def carry_description(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
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


def carry_state(source: keras.layers.Layer, twin: keras.layers.Layer) -> Iterator[tuple[keras.Variable, Any]]:
    """Carry over to a built copy what its source holds but for the values of weights, for which see `start_from`.

    Yields:
        Each variable of the copy, with the one of its source that it takes its value from.

    Raises:
        UnsupportedModelError: if the two do not hold the same variables in the same order.
    """
    layers = list(zip(_keras.sublayers(source), _keras.sublayers(twin), strict=False))
    for theirs, ours in layers:
        if ours.trainable != theirs.trainable:  # a configuration tells it of the outermost layer alone
            ours.trainable = theirs.trainable
    pairs = list(_weight_pairs(source, twin))
    for variable, inherited in pairs:
        _carry_attributes(inherited, variable)
        variable.regularizer = inherited.regularizer
    yield from pairs
    for theirs, ours in layers:
        if type(ours) is type(theirs):
            _carry_hidden_state(theirs, ours)


def initial_values(spec: LayerSpec, layer: keras.layers.Layer) -> Iterator[tuple[keras.Variable, Any]]:
    """Each variable of a new layer that starts from a given value, with that value.

    Raises:
        UnsupportedModelError: if the layer has a variable that the one which it is made from has not.
    """
    origin = spec.origin
    inherited = {} if origin is None else _by_place(origin)
    layers = [] if origin is None else _keras.sublayers(origin)
    configured = {id(value) for each in layers for value in vars(each).values()}
    for place, variable in _by_place(layer).items():
        if place in inherited:
            _carry_attributes(inherited[place], variable)
            regularizer = inherited[place].regularizer
            if regularizer is None or id(regularizer) not in configured:  # set by hand; the config may have another
                variable.regularizer = regularizer
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


def _carry_attributes(source: keras.Variable, variable: keras.Variable) -> None:
    """What is set on one variable, after its layer was made or by it."""
    if variable.trainable != source.trainable:
        variable.trainable = source.trainable
    variable.constraint = source.constraint


def _carry_hidden_state(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """What a layer keeps outside its variables: vocabularies, cached statistics."""
    if hasattr(type(source), "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            twin.load_assets(folder)
    elif hasattr(twin, "finalize_state"):
        twin.finalize_state()


def _weight_pairs(source: keras.layers.Layer, twin: keras.layers.Layer) -> Iterator[tuple[keras.Variable, Any]]:
    ours, theirs = twin.variables, source.variables
    if [_signature(variable) for variable in ours] != [_signature(variable) for variable in theirs]:
        raise UnsupportedModelError(
            f"Layer {source.name!r} ({type(source).__name__}) rebuilt from its configuration has other weights: "
            f"{[_signature(v) for v in ours]} where the model has {[_signature(v) for v in theirs]}. "
            "Rewrite with copy=False, which reuses the layer as it is."
        )
    yield from zip(ours, theirs, strict=True)


def _by_place(layer: keras.layers.Layer) -> dict[tuple[int, str], keras.Variable]:
    """The variables of a layer by their place in it: which of its sublayers holds them, and their name there.

    Their paths do not tell: a layer may have been renamed since it made them.
    """
    holders = {id(variable): index for index, each in enumerate(_keras.sublayers(layer)) for variable in each.variables}
    return {(holders[id(variable)], variable.name): variable for variable in layer.variables}


def _signature(variable: keras.Variable) -> tuple[str, tuple[int, ...], str]:
    # Keras numbers the variables that were given no name, all of a process: "variable_36".
    return re.sub(r"_\d+$", "", variable.name), tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)
