"""A Keras model as one TensorFlow function in inference mode, with its weights as constants.

Noise, Dropout and random augmentation are off. As constants, each weight is stored once and
TensorFlow's graph optimizer can fold what is computed from weights alone. Models of other
precisions are computed in float32.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.verification.interface import input_tensors, output_tensors, pack_inputs
from kerasbn.verification.precision import computing_in_float32, serving_dtype


@dataclasses.dataclass(frozen=True)
class InferenceFunction:
    """A frozen model.

    Attributes:
        function: Takes the flat inputs, returns the flat outputs.
        inputs: The specification of each input, named as in the model.
        outputs: The name of each output.
    """

    function: Any
    inputs: tuple[tf.TensorSpec, ...]
    outputs: tuple[str, ...]


def trace(model: keras.Model) -> InferenceFunction:
    """Trace a model and freeze its weights.

    Raises:
        UnsupportedModelError: if the model has no symbolic inputs, holds state that cannot be made
            a constant, such as a vocabulary, or changes its state when it runs.
    """
    specs = tuple(
        tf.TensorSpec(tensor.shape, tf.as_dtype(serving_dtype(tensor.dtype)), name=name)
        for name, tensor in input_tensors(model).items()
    )
    _refuse_open_time(model)

    updated: list[str] = []

    def run(*flat: Any) -> list[Any]:
        with keras.StatelessScope() as scope, computing_in_float32(model):
            outputs = model(pack_inputs(model, list(flat)), training=False)
        updated.extend(_updated(model, scope))
        return [tf.identity(output) for output in keras.tree.flatten(outputs)]

    concrete = tf.function(run, autograph=False).get_concrete_function(*specs)
    _refuse_updates(model, updated, concrete)
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    if len(frozen.inputs) != len(specs):
        held = [layer.name for layer in _keras.sublayers(model) if hasattr(layer, "save_assets")]
        raise UnsupportedModelError(
            f"Model {model.name!r} holds state that cannot be frozen"
            + (f", in {', '.join(map(repr, held))}" if held else "")
            + ". Export the model without its preprocessing layers, and run those ahead of it."
        )
    return InferenceFunction(frozen, specs, tuple(output_tensors(model)))


def _refuse_open_time(model: keras.Model) -> None:
    for layer in _keras.sublayers(model):
        if isinstance(layer, keras.layers.TimeDistributed) and layer.get_build_config()["input_shape"][1] is None:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} (TimeDistributed) has an open time dimension, which Keras computes wrongly in "
                "TensorFlow graphs. Fix the number of steps, keras.Input((steps, ...)), or drop the wrapper: most "
                "layers take further dimensions."
            )


def _updated(model: keras.Model, scope: keras.StatelessScope) -> list[str]:
    """What has changed its state in a call of the model: `"layer/variable"`."""
    if not scope.state_mapping:
        return []
    layers = _keras.sublayers(model)
    holders = {id(variable): layer.name for layer in layers for variable in layer.variables}  # the innermost is last
    drawn_from = _keras.global_seed_variables()
    holders.update((id(variable), "keras.random") for variable in drawn_from)
    changed = [each for each in (*model.variables, *drawn_from) if scope.get_current_value(each) is not None]
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
        "model cannot. Make RNNs with stateful=False, and random layers heed training=False."
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
