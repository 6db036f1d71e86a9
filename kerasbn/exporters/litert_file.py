"""Write files for LiteRT (TensorFlow Lite), through TensorFlow's converter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert_phase import ConverterError

from kerasbn.errors import UnsupportedModelError
from kerasbn.exporters import recurrent_loops, saved_model
from kerasbn.exporters.logs import silent_logs
from kerasbn.exporters.settings import Settings
from kerasbn.files.staging import scratch_beside
from kerasbn.verification.interface import Arrays, Interface

_SIGNATURE = "serving_default"
_CULPRIT = re.compile(r'error: loc\(\D*?"(\w+):", "([^"@]+)')
"""The operation and its name in the graph, in what the converter says of where an error is."""


def write(model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
    """Write a model for LiteRT, with its built-in operators alone.

    Returns:
        The number of operators.

    Raises:
        UnsupportedModelError: if the model computes something that these are not enough for.
    """
    return _write(model, interface, path, settings, lambda converter: None)


def quantize(
    model: keras.Model, interface: Interface, path: Path, settings: Settings, batches: Sequence[Arrays]
) -> int:
    """Write a model for LiteRT as `write` does, quantized. Inputs and outputs stay as they are.

    Args:
        model: The model.
        interface: How it is served.
        path: Where.
        settings: Say how to quantize it.
        batches: What the ranges of activations are measured on.
    """

    def set_up(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if settings.quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif settings.quantize == "int8":
            converter.representative_dataset = lambda: map(dict, batches)

    return _write(model, interface, path, settings, set_up)


def _write(
    model: keras.Model, interface: Interface, path: Path, settings: Settings, set_up: Callable[[Any], None]
) -> int:
    with scratch_beside(path) as folder, silent_logs():
        with recurrent_loops.traced(model):
            saved_model.write(model, interface, Path(folder), settings)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[_SIGNATURE])
        set_up(converter)
        try:
            content = converter.convert()
        except ConverterError as error:
            raise _refusal(model.name, str(error)) from error
    path.write_bytes(content)
    graphs = schema.ModelT.InitFromPackedBuf(content).subgraphs
    return sum(len(graph.operators) for graph in graphs)


def runner(path: Path, model: keras.Model, interface: Interface) -> Callable[[Arrays], Arrays]:
    """A function that runs a LiteRT file in its interpreter, without XNNPACK, which announces itself on stderr."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    run = Interpreter(str(path), experimental_op_resolver_type=plain).get_signature_runner(_SIGNATURE)
    return lambda inputs: run(**inputs)


def _refusal(name: str, message: str) -> UnsupportedModelError:
    found = dict(_CULPRIT.findall(message))
    what = ", ".join(f"{operation} (in {where})" for operation, where in found.items()) or "something"
    return UnsupportedModelError(
        f"Model {name!r} computes {what}, which LiteRT's built-in operators are not enough for. Export to ONNX or "
        "SavedModel instead, or replace the layers that compute it."
    )
