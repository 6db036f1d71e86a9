"""A Keras model as one TensorFlow function in inference mode, with its weights as constants.

Noise, Dropout and random augmentation are off. As constants, each weight is stored once and
TensorFlow's graph optimizer can fold what is computed from weights alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kerasbn.errors import UnsupportedModelError
from kerasbn.exporters.names import input_tensors, output_tensors, pack_inputs


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
        UnsupportedModelError: if the model has no symbolic inputs, or holds state that cannot be
            made a constant, such as a vocabulary.
    """
    specs = tuple(
        tf.TensorSpec(tensor.shape, tf.as_dtype(tensor.dtype), name=name)
        for name, tensor in input_tensors(model).items()
    )

    def run(*flat: Any) -> list[Any]:
        outputs = model(pack_inputs(model, list(flat)), training=False)
        return [tf.identity(output) for output in keras.tree.flatten(outputs)]

    concrete = tf.function(run, autograph=False).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    if len(frozen.inputs) != len(specs):
        held = [layer.name for layer in keras.tree.flatten(model.layers) if hasattr(layer, "save_assets")]
        raise UnsupportedModelError(
            f"Model {model.name!r} holds state that cannot be frozen"
            + (f", in {', '.join(map(repr, held))}" if held else "")
            + ". Export the model without its preprocessing layers, and run those ahead of it."
        )
    return InferenceFunction(frozen, specs, tuple(output_tensors(model)))
