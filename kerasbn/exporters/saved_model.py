"""Write TensorFlow SavedModels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasbn.exporters.inference import trace
from kerasbn.verification.parity import Arrays


def write(model: keras.Model, path: Path) -> int:
    """Write a model as a SavedModel, with the signature `serving_default` and each weight once.

    Returns:
        The number of nodes of its graph.

    Raises:
        UnsupportedModelError: if the model cannot be frozen.
    """
    inference = trace(model)

    def serve(*flat: Any) -> dict[str, Any]:
        return dict(zip(inference.outputs, inference.function(*flat), strict=True))

    module = tf.Module()
    module.serve = tf.function(serve, autograph=False)
    signature = module.serve.get_concrete_function(*inference.inputs)
    tf.saved_model.save(module, str(path), signatures={"serving_default": signature})
    return len(inference.function.graph.as_graph_def().node)


def runner(path: Path) -> Callable[[Arrays], Arrays]:
    """A function that runs a SavedModel's `serving_default`."""
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def run(inputs: Arrays) -> Arrays:
        outputs = signature(**{name: tf.convert_to_tensor(array) for name, array in inputs.items()})
        return {name: output.numpy() for name, output in outputs.items()}

    run.loaded = loaded  # type: ignore[attr-defined]  # a signature alone does not keep its constants alive
    return run
