"""What comes along from a layer to the one that takes its place, besides its configuration.

description   names, dtype policies,    at once: the layer is built with them
              vocabularies
variables     values, and what is set   once it is built
              on single ones
the rest      attributes, what is       once its variables have their values: things are worked out from them, and
              frozen                    TensorFlow never records the gradient of one that was made frozen
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.graph.model import LayerSpec, Place


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
        one.autocast = other.autocast
        one.activity_regularizer = other.activity_regularizer
        _keras.carry_rematerialization(other, one)
        if _keras.is_lookup(other):
            _keras.carry_weights_of_terms(other, one)
            _carry_assets(other, one)


def build_like(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """Let a copy make its weights, and what it holds: a layer inside may not be built before a call on values."""
    waiting, known = [(source, twin)], set()
    for one, other in waiting:  # which grows on the way
        known.add(one)
        if one.built and not other.built:
            if type(one).build is not keras.layers.Layer.build:
                other.build_from_config(one.get_build_config() or {})
            other.built = True
        theirs, ours = _keras.held_by(one), _keras.held_by(other)
        if [*map(type, theirs)] == [*map(type, ours)]:
            waiting += [pair for pair in zip(theirs, ours, strict=True) if pair[0] not in known]


def carry_variables(source: keras.layers.Layer, twin: keras.layers.Layer) -> Iterator[tuple[keras.Variable, Any]]:
    """Carry over to the variables of a built copy what is set on them; their values are for `_keras.set_value`.

    Yields:
        Each variable of the copy, with the one of its source that it takes its value from.

    Raises:
        UnsupportedModelError: if the two do not hold the same variables in the same order.
    """
    for variable, inherited in _weight_pairs(source, twin):
        variable.constraint = inherited.constraint
        variable.regularizer = inherited.regularizer
        yield variable, inherited


def carry_rest(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """Carry over to a copy whose variables have their values what else its source holds, and what is frozen."""
    theirs, ours = _keras.sublayers(source), _keras.sublayers(twin)
    if [type(layer) for layer in ours] == [type(layer) for layer in theirs]:
        for one, other in zip(theirs, ours, strict=True):
            if isinstance(one, keras.layers.InputLayer):
                continue  # that of a model built by its first call has the size of the batch it was called on
            carry_attributes(one, other)
            if hasattr(type(one), "save_assets") and not _keras.is_lookup(one):
                _carry_assets(one, other)
            if hasattr(other, "finalize_state"):
                other.finalize_state()
    carry_flags(source, twin)


def carry_settings(source: keras.layers.Layer, twin: keras.layers.Layer, fresh: keras.layers.Layer) -> None:
    """Carry over to a layer of another config the plain attributes that were set on its source, and that it has as yet.

    Args:
        source: The layer.
        twin: A layer of the same class, made from its config with changes.
        fresh: One made from its config as it is, which tells what was set since.
    """
    for layers in zip(*map(_keras.sublayers, (source, twin, fresh)), strict=False):
        if len({*map(type, layers)}) > 1:
            break
        theirs, ours, made = map(_keras.own_attributes, layers)
        for name in theirs.keys() & ours.keys() & made.keys():
            values = theirs[name], ours[name], made[name]
            if all(map(_is_plain, values)) and _equal(*values[1:]) and not _equal(*values[:2]):
                setattr(layers[1], name, copy.deepcopy(theirs[name]))


def carry_flags(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """Freeze of a layer what is frozen of the one in whose place it is: itself, what it holds, single variables."""
    theirs, ours = _keras.sublayers(source), _keras.sublayers(twin)
    for one, other in zip(theirs, ours, strict=True) if len(theirs) == len(ours) else [(source, twin)]:
        if other.trainable != one.trainable:
            other.trainable = one.trainable
    inherited = _by_place(source)
    for place, variable in _by_place(twin).items():
        if place in inherited and variable.trainable != inherited[place].trainable:
            variable.trainable = inherited[place].trainable


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
            variable.constraint = inherited[place].constraint
            if _is_regularized_by_hand(inherited[place], layers[place[0]], configured):  # the config may have another
                variable.regularizer = inherited[place].regularizer
        if (given := spec.values.get(place, spec.values.get(variable.name))) is not None:
            yield variable, given()
        elif place in inherited:
            yield variable, inherited[place]
        elif origin is not None:
            raise UnsupportedModelError(
                f"Layer {origin.name!r} ({type(origin).__name__}), made again with another config, has a weight "
                f"{variable.name!r} that the one in the model lacks. Leave out the option that changes the layer, or "
                "give it a get_config that tells of its weights."
            )


def _is_regularized_by_hand(variable: keras.Variable, holder: keras.layers.Layer, configured: set[int]) -> bool:
    """Whether the regularizer of a variable, or that it has none, is not what the arguments of its layer say."""
    if variable.regularizer is not None:
        return id(variable.regularizer) not in configured
    names = (variable.name, variable.name.removesuffix("_kernel"))
    return any(getattr(holder, f"{name}_regularizer", None) is not None for name in names)


def carry_attributes(source: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """Carry over plain attributes, which may have been set after the layer was made, or worked out by `adapt`."""
    theirs = _keras.own_attributes(source)
    for name, value in _keras.own_attributes(twin).items():
        if name in theirs and _is_plain(theirs[name]) and _is_plain(value) and not _equal(theirs[name], value):
            setattr(twin, name, copy.deepcopy(theirs[name]))


def _is_plain(value: Any) -> bool:
    return all(
        each is None or isinstance(each, bool | int | float | str | np.ndarray) for each in keras.tree.flatten(value)
    )


def _equal(one: Any, other: Any) -> bool:
    flat, others = keras.tree.flatten_with_path(one), keras.tree.flatten_with_path(other)
    return [path for path, _ in flat] == [path for path, _ in others] and all(
        np.array_equal(each, its) for (_, each), (_, its) in zip(flat, others, strict=True)
    )


def _carry_assets(source: Any, twin: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source.save_assets(folder)
        twin.load_assets(folder)


def _weight_pairs(source: keras.layers.Layer, twin: keras.layers.Layer) -> Iterator[tuple[keras.Variable, Any]]:
    ours, theirs = twin.variables, source.variables
    if not _alike(ours, theirs):
        # Quantizing to float8 adds weights behind the others, and a layer that is made quantized has them first.
        placed, inherited = _by_place(twin), _by_place(source)
        if len(placed) == len(ours) == len(theirs) and placed.keys() == inherited.keys():
            ours, theirs = list(placed.values()), [inherited[place] for place in placed]
    if not _alike(ours, theirs):
        raise UnsupportedModelError(
            f"Layer {source.name!r} ({type(source).__name__}) rebuilt from its configuration has other weights: "
            f"{[_signature(v) for v in ours]} where the model has {[_signature(v) for v in theirs]}. "
            "Rewrite with copy=False, which reuses the layer as it is."
        )
    yield from zip(ours, theirs, strict=True)


def _alike(ours: Sequence[keras.Variable], theirs: Sequence[keras.Variable]) -> bool:
    return [_signature(variable) for variable in ours] == [_signature(variable) for variable in theirs]


def _by_place(layer: keras.layers.Layer) -> dict[Place, keras.Variable]:
    """The variables of a layer by their place in it: which of its sublayers holds them, and their name there.

    Their paths do not tell: a layer may have been renamed since it made them.
    """
    return {
        (index, variable.name): variable
        for index, each in enumerate(_keras.sublayers(layer))
        for variable in _keras.own_variables(each)
    }


def _signature(variable: keras.Variable) -> tuple[str, tuple[int, ...], str]:
    # Keras numbers the variables that were given no name, all of a process: "variable_36".
    return re.sub(r"_\d+$", "", variable.name), tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)
