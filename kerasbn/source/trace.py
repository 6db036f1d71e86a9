"""Subclassed models as functional ones, by calling a copy on symbolic inputs.

What the call does between its layers in Python is done once, while tracing. So the outcome is
accepted only if it holds all the weights, does the same when traced in training mode, and computes
what the model computes.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError, line_of, quoted
from kerasbn.graph.carry import carry_description, carry_rest, carry_variables
from kerasbn.graph.clone import revived
from kerasbn.graph.read import read


@dataclasses.dataclass(frozen=True)
class Traced:
    """A model in functional form.

    Attributes:
        model: The functional model.
        sources: For each of its variables, by `id`, the variable of the traced model.
    """

    model: keras.Model
    sources: Mapping[int, keras.Variable]


def is_traceable(model: Any) -> bool:
    """Whether a model is subclassed, so that there is no graph of it but by tracing."""
    return (
        isinstance(model, keras.Model)
        and not isinstance(model, keras.Sequential)
        and _keras.functional_of(model) is None
    )


def trace(model: keras.Model, *, copy: bool) -> Traced:
    """Trace a subclassed model.

    Args:
        model: The model. It must have been called or built.
        copy: Whether to trace a copy. If not, the calls are recorded on the model's own layers, and
            the outcome has them.

    Raises:
        UnsupportedModelError: if the model cannot be traced, or the outcome is not the same.
    """
    if behaviour := [name for name in _keras.own_behaviour(model) if name not in ("call", "__call__")]:
        raise _untraceable(model, f"overrides {', '.join(behaviour)}, which the rewritten model would lose")
    shapes = _keras.built_shapes(model)
    if shapes is None:
        raise _untraceable(
            model, "was never called or built, so its inputs are not known. Call it on a batch first", remedy=""
        )
    twin = _copied(model) if copy else model
    inputs = keras.tree.map_shape_structure(lambda shape: keras.Input(shape[1:]), shapes)
    traced = keras.Model(inputs, _called(twin, model, inputs), name=model.name)
    _check_training(twin, model, inputs, traced)
    pairs = [(variable, variable) for variable in model.variables] if twin is model else _filled(model, twin)
    _keras.set_own_trainable(traced, model.trainable)
    traced.dtype_policy = model.dtype_policy
    _check_weights(model, traced, pairs)
    _check_outputs(model, traced)
    return Traced(traced, {id(ours): theirs for ours, theirs in pairs})


def _copied(model: keras.Model) -> keras.Model:
    try:
        twin = revived(type(model), model.get_config())
        if type(model).build is not keras.Model.build:
            twin.build(_keras.built_shapes(model))
    except Exception as error:
        raise _untraceable(
            model,
            f"cannot be made again from its configuration: {quoted(error)}",
            "Give it a get_config, or pass copy=False.",
        ) from error
    carry_description(model, twin)
    return twin


def _filled(model: keras.Model, twin: keras.Model) -> list[tuple[keras.Variable, keras.Variable]]:
    """The variables of a copy, each with the one that it has its value from."""
    pairs = []
    for ours, theirs in carry_variables(model, twin):
        ours.assign(theirs)
        pairs.append((ours, theirs))
    carry_rest(model, twin)
    return pairs


def _called(twin: keras.Model, model: keras.Model, inputs: Any, **arguments: Any) -> Any:
    try:
        outputs = twin.call(inputs, **arguments)
    except Exception as error:
        raise _untraceable(
            model, f"cannot be called on symbolic inputs, at {line_of(error)}: {quoted(error)}"
        ) from error
    if not all(isinstance(output, keras.KerasTensor) for output in keras.tree.flatten(outputs)):
        raise _untraceable(model, "returns something else than tensors from its call")
    return outputs


def _check_training(twin: keras.Model, model: keras.Model, inputs: Any, traced: keras.Model) -> None:
    """What depends on `training` must do so inside the layers, not in the Python code between them."""
    if "training" not in inspect.signature(twin.call).parameters:
        return
    in_training = keras.Model(inputs, _called(twin, model, inputs, training=True))
    if read(in_training).steps != read(traced).steps:
        raise _untraceable(model, "does something else in training, by an `if training:` in its call")


def _check_weights(model: keras.Model, traced: keras.Model, pairs: list[tuple[keras.Variable, keras.Variable]]) -> None:
    held = {id(variable) for variable in traced.variables}
    for ours, theirs in pairs:
        if id(ours) not in held:
            raise _untraceable(model, f"uses its weight {theirs.path!r} outside of any layer")


def _check_outputs(model: keras.Model, traced: keras.Model) -> None:
    generator = np.random.default_rng(0)
    inputs = keras.tree.map_structure(
        lambda tensor: np.abs(generator.normal(size=[2, *(size or 8 for size in tensor.shape[1:])])).astype("float32"),
        traced.input,
    )
    expected, got = (keras.tree.flatten(each(inputs, training=False)) for each in (model, traced))
    for one, other in zip(expected, got, strict=True):
        one, other = (keras.ops.convert_to_numpy(tensor) for tensor in (one, other))
        if not np.allclose(one, other, rtol=1e-5, atol=1e-5 * float(np.max(np.abs(one), initial=0.0))):
            raise _untraceable(model, "computes something else once it is traced")


def _untraceable(
    model: keras.Model, cause: str, remedy: str = "Build the same network with keras.Model(inputs, outputs)."
) -> UnsupportedModelError:
    return UnsupportedModelError(f"Model {model.name!r} is a {type(model).__name__}; it {cause}. {remedy}".strip())
