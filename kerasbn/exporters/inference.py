"""A Keras model as one TensorFlow function in inference mode, of its inputs and its weights.

Noise, Dropout and random augmentation are off. The weights are variables that are read, or
further arguments behind the inputs, or constants: `trace`, `frozen`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.verification.interface import Interface, pack_inputs
from kerasbn.verification.precision import computing_in, serving_dtype

_TAKEN = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
"""What TensorFlow takes as the name of a scope or of a variable in a graph; Keras takes any."""


@dataclasses.dataclass(frozen=True)
class InferenceFunction:
    """A traced model.

    Attributes:
        model: The model.
        interface: How it is served.
        function: Takes the flat inputs, and the values of `weights` behind them; returns the flat outputs.
        weights: The weights that are arguments, in the order in which the function takes them.
        held: What has to live as long as the function: variables and lookup tables.
    """

    model: keras.Model
    interface: Interface
    function: Any
    weights: tuple[keras.Variable, ...] = ()
    held: tuple[Any, ...] = ()


def trace(model: keras.Model, interface: Interface, arguments: Sequence[keras.Variable] = ()) -> InferenceFunction:
    """Trace a model; its weights are variables that the function reads, in the type that they are served in.

    Args:
        model: The model.
        interface: How it is served.
        arguments: The weights that are arguments instead, so that no value of theirs passes through what reads the
            graph.

    Raises:
        UnsupportedModelError: if the model changes its state when it runs, or has an open dimension that Keras
            computes wrongly.
    """
    specs, given = _specs(interface), {id(variable) for variable in arguments}
    served = [(each, serving_dtype(each.dtype, interface.precision)) for each in model.variables]
    others = [
        (each, tf.Variable(tf.cast(each.value, dtype)))
        for each, dtype in served
        if (dtype != each.dtype or not _TAKEN.fullmatch(each.path)) and id(each) not in given
    ]
    specs_of_arguments = [
        tf.TensorSpec(each.shape, serving_dtype(each.dtype, interface.precision), name=f"weight_{number}")
        for number, each in enumerate(arguments)
    ]

    def run(flat: Sequence[Any]) -> Any:
        weights = [*others, *zip(arguments, flat[len(specs) :], strict=True)]
        return _run(model, interface, flat[: len(specs)], weights)

    function = _traced(model, run, [*specs, *specs_of_arguments])
    held = (*function.graph.variables, *_tables(model))
    return InferenceFunction(model, interface, function, tuple(arguments), held)


def frozen(traced: InferenceFunction) -> Any:
    """A traced model with what it captures as constants: its weights, unless they are arguments.

    TensorFlow's graph optimizer can fold what constants alone decide.

    Raises:
        UnsupportedModelError: if the model holds state that cannot be made a constant, such as a vocabulary.
    """
    function = convert_variables_to_constants_v2(traced.function, lower_control_flow=False)
    if len(function.inputs) != len(traced.interface.inputs) + len(traced.weights):
        raise UnsupportedModelError(
            f"Model {traced.model.name!r} holds state that cannot be frozen{_in_layers(traced.model)}. "
            "Export the model without its preprocessing layers, and run those ahead of it."
        )
    return function


def _specs(interface: Interface) -> list[Any]:
    return [tf.TensorSpec(port.shape, tf.as_dtype(port.dtype), name=port.name) for port in interface.inputs]


def _run(
    model: keras.Model, interface: Interface, flat: Sequence[Any], weights: Iterable[tuple[keras.Variable, Any]]
) -> tuple[list[Any], list[str]]:
    """The flat outputs with other values for some weights, and what has changed its state."""
    values = [(variable, tf.convert_to_tensor(value)) for variable, value in weights]
    with keras.StatelessScope() as scope, computing_in(interface.precision, model):
        for each in values:
            scope.add_update(each)  # as it is, where `state_mapping` would cast it
        outputs = model(pack_inputs(model, list(flat)), training=False)
    return [tf.identity(output) for output in keras.tree.flatten(outputs)], _updated(
        model, scope, {id(variable): value for variable, value in values}
    )


def _traced(model: keras.Model, run: Callable[[Sequence[Any]], Any], specs: list[Any]) -> Any:
    _refuse_open_time(model)
    updated: list[str] = []

    def outputs(*flat: Any) -> list[Any]:
        found, changed = run(flat)
        updated.extend(changed)
        return found  # type: ignore[no-any-return]

    with _keras.without_scopes(each for each in _keras.sublayers(model) if not _TAKEN.fullmatch(each.name)):
        concrete = tf.function(outputs, autograph=False).get_concrete_function(*specs)
    _refuse_updates(model, updated, concrete)
    return concrete


def _tables(model: keras.Model) -> tuple[Any, ...]:
    """The lookup tables of a model's layers."""
    kind = tf.saved_model.experimental.TrackableResource
    held = [vars(layer).values() for layer in _keras.sublayers(model)]
    return tuple(each for values in held for each in values if isinstance(each, kind))


def _in_layers(model: keras.Model) -> str:
    held = [layer.name for layer in _keras.sublayers(model) if hasattr(layer, "save_assets")]
    return f", in {', '.join(map(repr, held))}" if held else ""


def _refuse_open_time(model: keras.Model) -> None:
    for layer in _keras.sublayers(model):
        if isinstance(layer, keras.layers.TimeDistributed) and layer.get_build_config()["input_shape"][1] is None:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} (TimeDistributed) has an open time dimension, which Keras computes wrongly in "
                "TensorFlow graphs. Fix the number of steps, keras.Input((steps, ...)), or drop the wrapper: most "
                "layers take further dimensions."
            )


def _updated(model: keras.Model, scope: keras.StatelessScope, given: Mapping[int, Any]) -> list[str]:
    """What has changed its state in a call of the model: `"layer/variable"`."""
    if scope.state_mapping.keys() == given.keys() and all(scope.state_mapping[key] is given[key] for key in given):
        return []
    layers = _keras.sublayers(model)
    holders = {id(variable): layer.name for layer in layers for variable in layer.variables}  # the innermost is last
    drawn_from = _keras.global_seed_variables()
    holders.update((id(variable), "keras.random") for variable in drawn_from)
    changed = [
        each for each in (*model.variables, *drawn_from) if scope.get_current_value(each) is not given.get(id(each))
    ]
    # The states of RNNs are not among a model's variables.
    stateful = [f"{layer.name}/states" for layer in layers if getattr(layer, "stateful", False)]
    return [f"{holders[id(variable)]}/{variable.name}" for variable in changed] + stateful


def _refuse_updates(model: keras.Model, updated: list[str], concrete: Any) -> None:
    if not _draws(concrete):  # recurrent layers draw their Dropout at inference as well, and leave it
        updated = [path for path in updated if not path.endswith("/seed_generator_state")]
    if not updated:
        return
    raise UnsupportedModelError(
        f"Model {model.name!r} changes the state of {', '.join(map(repr, updated))} whenever it runs, which a served "
        "model cannot. Make RNNs with stateful=False, and random layers heed training=False. What draws on purpose, as "
        "a VAE's encoder does, draws where it is served: export keras.Model(model.inputs, what_it_draws_from)."
    )


def _draws(concrete: Any) -> bool:
    """Whether random numbers go into the outputs."""
    waiting, seen = [output.op for output in concrete.outputs], set()
    while waiting:
        operation = waiting.pop()
        if operation.type.startswith("StatelessRandom"):
            return True
        if operation not in seen:
            seen.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
    return False
