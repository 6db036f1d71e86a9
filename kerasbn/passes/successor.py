"""What takes the place of a normalization that is there already.

Among batch normalizations weights and statistics go along, and inference stays as it is. Gamma takes in another
epsilon:

    gamma' = gamma sqrt(moving_variance + epsilon') / sqrt(moving_variance + epsilon)

Any other normalization computes something else; gamma and beta go along where they fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.arrays import array_of
from kerasbn.catalog.normalization import infers_as_known, map_of, weights_for
from kerasbn.graph.clone import constructor_arguments, inside
from kerasbn.graph.model import LayerSpec, Value, Values, core_of
from kerasbn.passes.prototype import Prototype, tried
from kerasbn.reasons import Reason, Refusal

_OF_THE_LAYER = ("name", "trainable")
_OF_ITS_WEIGHTS = ("_regularizer", "_constraint")
_SLOPES, _SHIFT = ("gamma", "scale"), "beta"


@dataclasses.dataclass(frozen=True)
class Successor:
    """What takes the place of a normalization.

    Attributes:
        spec: The layer to be.
        exact: Whether it computes the same at inference.
        detail: What it is, for people to read.
    """

    spec: LayerSpec
    exact: bool
    detail: str


def successor_of(
    layer: keras.layers.Layer, value: Value, prototype: Prototype, *, fitted: bool, keeps_epsilon: bool
) -> Successor:
    """A normalization like the prototype in the place of another one.

    It keeps what is the layer's own: name, axis, type of the numbers, what is frozen, regularizers and constraints.

    Args:
        layer: The normalization, which `TimeDistributed` may be around.
        value: What it normalizes.
        prototype: The prototype.
        fitted: Whether gamma and beta are going to be fitted to what it computes.
        keeps_epsilon: Whether a batch normalization keeps the epsilon of another.

    Raises:
        Refusal: if there is none.
    """
    norm: Any = core_of(layer)
    config = _configuration(norm, prototype.layer, value)
    if isinstance(norm, keras.layers.BatchNormalization):
        if not infers_as_known(norm):
            raise Refusal(Reason.UNKNOWN_SUBCLASS, f"a {type(norm).__name__}, which may compute something else")
        if prototype.known:
            if keeps_epsilon:
                config["epsilon"] = norm.epsilon
            return _of_its_kind(layer, norm, prototype, config)
    return _of_another_kind(layer, norm, value, prototype, config, fitted=fitted)


def _configuration(norm: Any, prototype: keras.layers.Layer, value: Value) -> dict[str, Any]:
    own, config = constructor_arguments(norm), constructor_arguments(prototype)
    config |= {
        key: own[key] for key in config.keys() & own.keys() if key in _OF_THE_LAYER or key.endswith(_OF_ITS_WEIGHTS)
    }
    config["dtype"] = norm.dtype_policy
    axes = keras.tree.flatten(getattr(norm, "axis", -1))
    if len(axes) != 1:
        raise Refusal(Reason.CHANNEL_AXIS, f"normalizes the axes {axes} together")
    if isinstance(config.get("axis"), int):
        config["axis"] = axes[0]
    if isinstance(config.get("groups"), int):
        config["groups"] = _groups(value.shape[axes[0]], config["groups"])
    if type(norm) is type(prototype) and _plain({**own, "axis": axes[0]}) == _plain(config):
        raise Refusal(Reason.ALIKE, f"is a {type(norm).__name__} like it already")
    return config


def _groups(channels: int | None, most: int) -> int:
    """The largest divisor of the channels up to a number, which is below 1 where each channel is a group."""
    if channels is None or most < 1:
        return most
    return next(groups for groups in range(min(most, channels), 0, -1) if channels % groups == 0)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in (*_OF_THE_LAYER, "dtype")}
    return {key: value for key, value in kept.items() if value is None or isinstance(value, bool | int | float | str)}


def _of_its_kind(
    layer: keras.layers.Layer, norm: keras.layers.BatchNormalization, prototype: Prototype, config: dict[str, Any]
) -> Successor:
    kind = type(prototype.layer).__name__
    for weight, argument in (("gamma", "scale"), ("beta", "center")):
        if getattr(norm, weight) is not None and not config[argument]:
            raise Refusal(Reason.NORM, f"has a {weight}, and norm has {argument}=False")
    if getattr(norm, "frozen_statistics", False):
        if "frozen_statistics" not in config:
            raise Refusal(Reason.NORM, f"has frozen statistics, which a {kind} of Keras's cannot have")
        config["frozen_statistics"] = True
    other = norm.epsilon != config["epsilon"]
    if other and not config["scale"]:
        raise Refusal(Reason.NORM, "has another epsilon, and there is no gamma to take that in")
    values: Values = {}
    if norm.gamma is None or other:
        values["gamma"] = lambda: _gamma(norm, config["epsilon"])
    if norm.beta is None:
        values["beta"] = lambda: 0.0
    if getattr(norm, "seen_batches", None) is None:  # an average over batches counts for about 1 / (1 - momentum)
        values["seen_batches"] = lambda: 1 / max(1 - norm.momentum, 1e-6)
    if not norm.renorm:
        epsilon = config["epsilon"]  # which the layer takes off again
        values["moving_stddev"] = values["renorm_stddev"] = lambda: (array_of(norm.moving_variance) + epsilon) ** 0.5
        values["renorm_mean"] = lambda: array_of(norm.moving_mean)
    spec = dataclasses.replace(inside(layer, LayerSpec(type(prototype.layer), config)), origin=layer, values=values)
    taken = f"; gamma takes in the epsilon of {config['epsilon']:g} instead of {norm.epsilon:g}" if other else ""
    return Successor(spec, True, f"by a {kind}: weights and statistics go along{taken}")


def _gamma(norm: keras.layers.BatchNormalization, epsilon: float) -> Any:
    """The gamma with which a batch normalization of this epsilon computes the same."""
    if norm.gamma is None and epsilon == norm.epsilon:
        return 1.0
    return weights_for(map_of(norm), array_of(norm.moving_mean), array_of(norm.moving_variance), epsilon)[0]


def _of_another_kind(
    layer: keras.layers.Layer, norm: Any, value: Value, prototype: Prototype, config: dict[str, Any], *, fitted: bool
) -> Successor:
    spec = inside(layer, LayerSpec(type(prototype.layer), config))
    made = core_of(tried(spec, value))
    shapes = {variable.name: tuple(variable.shape) for variable in _keras.own_variables(made)}
    own = {variable.name: variable for variable in _keras.own_variables(norm)}
    slope = next((own[name] for name in _SLOPES if name in own), None)
    known = {**dict.fromkeys(_SLOPES, slope), _SHIFT: own.get(_SHIFT)}
    along = {
        name: weight for name, weight in known.items() if weight is not None and shapes.get(name) == tuple(weight.shape)
    }
    groups = f" of {config['groups']} groups" if isinstance(config.get("groups"), int) else ""
    names = " and ".join(name for name in (*_SLOPES, _SHIFT) if name in shapes)
    if fitted and names:
        what = f"{names} {'are' if ' ' in names else 'is'} fitted on data to what it computed"
    else:
        what = f"{' and '.join(along)} {'go' if len(along) > 1 else 'goes'} along, " if along else ""
        what += "outputs change"
    spec = _with_values(spec, {name: partial(array_of, weight) for name, weight in along.items()})
    return Successor(spec, False, f"by a {type(prototype.layer).__name__}{groups}; {what}")


def _with_values(spec: LayerSpec, values: Values) -> LayerSpec:
    """The same with weights of the innermost layer that start from values."""
    if not spec.wrapped:
        return dataclasses.replace(spec, values=values)
    return dataclasses.replace(spec, config={**spec.config, "layer": _with_values(spec.config["layer"], values)})
