"""Write files for OpenVINO: the graph in `.xml`, the weights beside it in `.bin`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import openvino
from openvino import opset16

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.exporters import saved_model
from kerasbn.exporters.logs import silent_logs
from kerasbn.exporters.settings import Settings
from kerasbn.files.staging import scratch_beside
from kerasbn.verification.interface import Arrays, Interface, Port


def write(model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
    """Write a model for OpenVINO.

    Returns:
        The number of operations.

    Raises:
        UnsupportedModelError: if the model cannot be traced, or has layers in int8 or float8.
    """
    return _write(model, interface, path, settings, halved=False)


def quantize(
    model: keras.Model, interface: Interface, path: Path, settings: Settings, batches: Sequence[Arrays]
) -> int:
    """Write a model for OpenVINO as `write` does, with weights in float16."""
    return _write(model, interface, path, settings, halved=True)


def runner(path: Path, model: keras.Model, interface: Interface) -> Callable[[Arrays], Arrays]:
    """A function that runs a file on OpenVINO's CPU, in float32: by itself it computes in bfloat16 where it can."""
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [port.name for port in interface.outputs]

    def run(inputs: Arrays) -> Arrays:
        outputs = compiled(dict(inputs))
        return {name: outputs[name] for name in names}

    return run


def _write(model: keras.Model, interface: Interface, path: Path, settings: Settings, *, halved: bool) -> int:
    _refuse_quantized(model)
    # Not through `openvino.convert_model`, which reports its use to OpenVINO's makers where the user lets it.
    with scratch_beside(path) as folder:
        with silent_logs():
            saved_model.write(model, interface, Path(folder), settings)
        graph = openvino.Core().read_model(folder)
        _name(graph, interface)
        openvino.save_model(graph, path, compress_to_fp16=halved)
        return len(graph.get_ops())


def _refuse_quantized(model: keras.Model) -> None:
    for layer in _keras.sublayers(model):
        if layer.dtype_policy.quantization_mode in ("int8", "float8"):
            raise UnsupportedModelError(
                f"Layer {layer.name!r} is quantized to {layer.dtype_policy.quantization_mode}, in a form that OpenVINO "
                "computes wrongly or not at all. Export to SavedModel, or export the model that it was before."
            )


def _name(graph: openvino.Model, interface: Interface) -> None:
    """Give inputs and outputs their names alone, and inputs their shapes."""
    inputs = _by_name(graph.inputs, interface.inputs)
    for name, output in _by_name(graph.outputs, interface.outputs).items():
        result = output.get_node()
        # Names are those of a value. So that no two share one, each output becomes a value of its own.
        value = opset16.identity(result.input_value(0)).output(0)
        result.input(0).replace_source_output(value)
        value.get_tensor().set_names({name})
    for name, value in inputs.items():
        value.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    graph.reshape(
        {
            port.name: openvino.PartialShape([-1 if size is None else size for size in port.shape])
            for port in interface.inputs
        }
    )


def _by_name(values: Sequence[Any], ports: Sequence[Port]) -> dict[str, Any]:
    """The value of each port. Ports of one value have both their names on it."""
    rest, found = list(values), {}
    for port in ports:
        found[port.name] = next(each for each in rest if port.name in each.get_names())
        rest.remove(found[port.name])
    return found
