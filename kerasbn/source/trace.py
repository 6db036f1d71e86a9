"""Subclassed models as functional ones, by calling a copy on symbolic inputs.

What the call does between its layers in Python is done once, while tracing. So the outcome is
accepted only if it holds all the weights, does the same when traced in training mode, and computes
what the model computes.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.catalog.roles import Role, role_of
from kerasbn.errors import UnsupportedModelError, line_of, quoted
from kerasbn.graph.carry import carry_description, carry_rest, carry_variables
from kerasbn.graph.clone import revived
from kerasbn.graph.read import read
from kerasbn.reasons import Reason
from kerasbn.source.faithful import difference, is_about_loss, outcome
from kerasbn.source.signature import Signature, signature_of


@dataclasses.dataclass(frozen=True)
class Traced:
    """A model in functional form.

    Attributes:
        model: The functional model.
        sources: For each of its variables, by `id`, the variable of the traced model.
        inert: The layers that train in it and do not in the traced model, as the call of that takes no
            `training` for Keras to pass on.
    """

    model: keras.Model
    sources: Mapping[int, keras.Variable]
    inert: tuple[str, ...]


_LOST: Mapping[Reason, str] = {
    Reason.NOT_FAITHFUL: "computes something else",
    Reason.OWN_MASK: "yields other masks",
    Reason.OWN_LOSSES: "adds losses in its call, which would be lost",
}


def is_traceable(model: Any) -> bool:
    """Whether a model is subclassed, so that there is no graph of it but by tracing."""
    return (
        isinstance(model, keras.Model)
        and not isinstance(model, keras.Sequential)
        and _keras.functional_of(model) is None
    )


def trace(model: keras.Model, *, copy: bool, example: Any = None, at_inference: bool = False) -> Traced:
    """Trace a subclassed model.

    Args:
        model: The model. It must have been called or built.
        copy: Whether to trace a copy. If not, the calls are recorded on the model's own layers, and
            the outcome has them.
        example: A batch of its inputs. Defaults to `None`: what it was built for.
        at_inference: Whether the outcome is for inference alone, so that it does not matter what the
            model does in training. Defaults to `False`.

    Raises:
        UnsupportedModelError: if the model cannot be traced, or the outcome is not the same.
    """
    behaviour = [name for name in _keras.own_behaviour(model) if name not in ("call", "__call__")]
    if behaviour and not at_inference:
        raise _untraceable(model, f"overrides {', '.join(behaviour)}, which the rewritten model would lose")
    signature = signature_of(model, example)
    twin = _copied(model, signature) if copy else model
    inputs = _inputs(model, signature)
    takes_training = _takes_training(model)
    arguments = {"training": False} if takes_training and at_inference else {}
    traced = keras.Model(inputs, _called(twin, model, inputs, **arguments), name=model.name)
    if takes_training and not at_inference:
        _check_training(twin, model, inputs, traced)
    pairs = [(variable, variable) for variable in model.variables] if twin is model else _filled(model, twin)
    _keras.set_own_trainable(traced, model.trainable)
    traced.dtype_policy = model.dtype_policy
    own = {id(variable) for variable in _keras.own_variables(twin)}
    # Layers that only training calls are not missed at inference.
    _check_weights(model, traced, [pair for pair in pairs if not at_inference or id(pair[0]) in own])
    _check_outcome(model, traced, pairs, signature, in_training=takes_training and not at_inference)
    inert = () if takes_training else _trained_otherwise(traced)
    return Traced(traced, {id(ours): theirs for ours, theirs in pairs}, inert)


def as_one_layer(model: keras.Model, example: Any = None) -> keras.Model:
    """A functional model that does nothing but call a subclassed one, whatever that does.

    Args:
        model: The model.
        example: A batch of its inputs. Defaults to `None`: what it was built for.

    Raises:
        UnsupportedModelError: if the inputs of the model are not known.
    """
    inputs = _inputs(model, signature_of(model, example))
    return keras.Model(inputs, model(inputs), name=model.name)


def _takes_training(model: keras.Model) -> bool:
    return "training" in inspect.signature(model.call).parameters


def _trained_otherwise(traced: keras.Model) -> tuple[str, ...]:
    """The layers of a model that do something else in training."""
    roles = (Role.BATCH_NORMALIZATION, Role.DROPOUT)
    return tuple(layer.name for layer in _keras.sublayers(traced) if role_of(layer) in roles)


def _inputs(model: keras.Model, signature: Signature) -> Any:
    """Symbolic inputs by the names of a dictionary's keys, else by the one that the argument of `call` has."""
    taken = {layer.name for layer in _keras.sublayers(model)}
    argument = next(iter(inspect.signature(model.call).parameters), "inputs")

    def named(path: tuple[Any, ...], spec: keras.KerasTensor) -> Any:
        own = "_".join(map(str, path if path and isinstance(path[-1], str) else (argument, *path)))
        numbered = itertools.chain([own], (f"{own}_{number}" for number in itertools.count(1)))
        name = next(name for name in numbered if name not in taken)
        taken.add(name)
        return keras.Input(spec.shape[1:], dtype=spec.dtype, name=name)

    flat = [named(path, spec) for path, spec in keras.tree.flatten_with_path(signature.specs)]
    return keras.tree.pack_sequence_as(signature.specs, flat)


def _copied(model: keras.Model, signature: Signature) -> keras.Model:
    try:
        twin = revived(type(model), model.get_config())
        if type(model).build is not keras.Model.build:
            twin.build(signature.shapes)
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
        _keras.set_value(ours, theirs)
        pairs.append((ours, theirs))
    carry_rest(model, twin)
    return pairs


def _called(twin: keras.Model, model: keras.Model, inputs: Any, **arguments: Any) -> Any:
    try:
        outputs = twin.call(inputs, **arguments)
    except Exception as error:
        if is_about_loss(error):
            raise _untraceable(model, f"{_LOST[Reason.OWN_LOSSES]}, at {line_of(error)}") from None
        raise _untraceable(
            model, f"cannot be called on symbolic inputs, at {line_of(error)}: {quoted(error)}"
        ) from error
    if not all(isinstance(output, keras.KerasTensor) for output in keras.tree.flatten(outputs)):
        raise _untraceable(model, "returns something else than tensors from its call")
    return outputs


def _check_training(twin: keras.Model, model: keras.Model, inputs: Any, traced: keras.Model) -> None:
    """What depends on `training` must do so inside the layers, not in the Python code between them."""
    in_training = keras.Model(inputs, _called(twin, model, inputs, training=True))
    if read(in_training).steps != read(traced).steps:
        raise _untraceable(model, "does something else in training, by an `if training:` in its call")


def _check_weights(model: keras.Model, traced: keras.Model, pairs: list[tuple[keras.Variable, keras.Variable]]) -> None:
    held = {id(variable) for variable in traced.variables}
    for ours, theirs in pairs:
        if id(ours) not in held and keras.backend.is_float_dtype(ours.dtype):  # no state of a random generator
            raise _untraceable(model, f"uses its weight {theirs.path!r} outside of any layer")


def _check_outcome(
    model: keras.Model,
    traced: keras.Model,
    pairs: list[tuple[keras.Variable, keras.Variable]],
    signature: Signature,
    *,
    in_training: bool,
) -> None:
    values = signature.values()
    ours, theirs = zip(*pairs, strict=True) if pairs else ((), ())
    for training in (False, True) if in_training else (False,):
        expected = outcome(lambda: model(values, training=training), theirs)  # noqa: B023
        got = outcome(lambda: traced(values, training=training), ours)  # noqa: B023
        if (reason := difference(expected, got)) is None:
            continue
        if training and (
            told := [site for site in read(traced).sites if isinstance(site.kwargs.get("training"), bool)]
        ):
            raise _untraceable(
                model,
                f"calls {told[0].name!r} with training={told[0].kwargs['training']}, which Keras's functional models "
                "do not heed.",
                "Leave that out of the call; to keep a batch normalization's statistics, set its trainable to False.",
            )
        raise _untraceable(model, f"{_LOST[reason]} once it is traced, {'in training' if training else 'at inference'}")


def _untraceable(
    model: keras.Model, cause: str, remedy: str = "Build the same network with keras.Model(inputs, outputs)."
) -> UnsupportedModelError:
    return UnsupportedModelError(f"Model {model.name!r} is a {type(model).__name__}; it {cause}. {remedy}".strip())
