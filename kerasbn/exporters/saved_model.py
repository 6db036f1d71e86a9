"""Write TensorFlow SavedModels."""

from __future__ import annotations

import errno
import keyword
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasbn.errors import UnsupportedModelError, quoted
from kerasbn.exporters.inference import frozen, trace
from kerasbn.exporters.logs import silent_logs
from kerasbn.exporters.settings import Settings
from kerasbn.verification.interface import Arrays, Interface

_TAKEN = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.>-]*")
"""What TensorFlow keeps as the name of an argument."""


def write(model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
    """Write a model as a SavedModel, with the signature `serving_default` and each weight once.

    Returns:
        The number of nodes of its graph.

    Raises:
        UnsupportedModelError: if the model cannot be traced, or not be frozen, or has inputs of a name that TensorFlow
            does not take.
        OSError: if the folder cannot be written.
    """
    _check_names(interface, settings)
    traced = trace(model, interface)
    function = frozen(traced) if settings.frozen else traced.function
    names = [port.name for port in interface.outputs]

    def serve(*flat: Any) -> dict[str, Any]:
        return dict(zip(names, function(*flat), strict=True))

    module = tf.Module()
    module.held = () if settings.frozen else traced.held
    module.serve = tf.function(serve, autograph=False)
    specs = [tf.TensorSpec(port.shape, tf.as_dtype(port.dtype), name=port.name) for port in interface.inputs]
    signature = module.serve.get_concrete_function(*specs)
    # Gradients of one's own, as silu has them, would have to be traced and stored as well.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        with silent_logs():  # in a notebook TensorFlow says where it writes, which is not yet where the model goes
            tf.saved_model.save(module, str(path), signatures={"serving_default": signature}, options=options)
    except tf.errors.OpError as error:  # as TensorFlow calls a full disk
        raise OSError(errno.EIO, quoted(error)) from error
    return len(function.graph.as_graph_def().node)


def _check_names(interface: Interface, settings: Settings) -> None:
    """Refuse names of inputs that TensorFlow cannot make arguments of a function of."""
    own = {given: name for name, given in (settings.names or {}).items()}
    taken: set[str] = set()
    for name in (port.name for port in interface.inputs):
        argument = re.sub(r"[^a-z0-9]", "_", name.lower())  # as TensorFlow makes it
        if not _TAKEN.fullmatch(name) or keyword.iskeyword(name) or name == "self" or argument in taken:
            raise UnsupportedModelError(
                f"TensorFlow can serve no input of the name {name!r}"
                f"{' beside its others' if argument in taken else ''}. It takes letters from A to Z and digits, and "
                "_ . - behind these, without telling apart upper and lower case or these signs, and no word of Python. "
                "Give it another name, "
                f"kerasbn.export(..., names={{{own.get(name, name)!r}: 'x'}}), or export to ONNX, which takes any."
            )
        taken.add(argument)


def runner(path: Path, model: keras.Model, interface: Interface) -> Callable[[Arrays], Arrays]:
    """A function that runs a SavedModel's `serving_default`."""
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def run(inputs: Arrays) -> Arrays:
        outputs = signature(**{name: tf.convert_to_tensor(array) for name, array in inputs.items()})
        return {name: output.numpy() for name, output in outputs.items()}

    run.loaded = loaded  # type: ignore[attr-defined]  # a signature alone does not keep its variables alive
    return run
