"""Write ONNX files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import keras
import onnx_ir as ir

from kerasbn.exporters.conversion import converted
from kerasbn.exporters.inference import trace
from kerasbn.exporters.logs import silent_logs
from kerasbn.exporters.onnx_check import check_file
from kerasbn.exporters.onnx_graph import simplify
from kerasbn.exporters.onnx_stable import name, put_in_order
from kerasbn.exporters.recurrent_operators import RecurrentOperators
from kerasbn.exporters.settings import Settings
from kerasbn.files.formats import companions_of
from kerasbn.provenance import versions
from kerasbn.verification.interface import Arrays, Interface

LARGEST = 2**31 - 2**24
"""The most bytes of weights in one file, which can hold 2 GiB with the graph."""


def write(model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
    """Write a model as ONNX.

    Returns:
        The number of nodes.

    Raises:
        UnsupportedModelError: if the model uses something that ONNX has no form for.
        VerificationError: if the ONNX checker refuses the outcome.
    """
    operators = RecurrentOperators()
    with silent_logs():
        with operators.traced(model):
            traced = trace(model, interface, [each for each in model.variables if not _is_per_channel(each)])
        written, weights = converted(traced, operators, settings.opset)
        put_in_order(written)
        simplify(written, batch_normalization=settings.quantize is None)  # a node that int8 is slower with
        name(written, weights)
    _describe(written, model.name, interface)
    _save(written, path)
    check_file(path, f"The ONNX form of model {model.name!r}")
    return len(written.graph)


def _is_per_channel(variable: keras.Variable) -> bool:
    """Whether a weight has one axis: as a constant, it is moved past transposes and into convolutions."""
    return bool(math.prod(variable.shape) == max(variable.shape, default=1))


def _describe(model: ir.Model, name: str, interface: Interface) -> None:
    packages = versions()
    model.producer_name, model.producer_version = "kerasbn", packages["kerasbn"]
    model.metadata_props.update(packages)
    model.graph.name = name
    model.graph.doc_string = None
    _name_open_dimensions(model.graph, interface)


def _save(model: ir.Model, path: Path) -> None:
    """In one file, or where that would be too large, with the weights in another one beside it."""
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    (data,) = companions_of("onnx", path)
    ir.save(model, path, external_data=data.name if weights > LARGEST else None)


def runner(path: Path, model: keras.Model, interface: Interface) -> Callable[[Arrays], Arrays]:
    """A function that runs an ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def _name_open_dimensions(graph: ir.Graph, interface: Interface) -> None:
    """Name what is open in the shapes of inputs and outputs: the batch, and the others after their tensor."""
    shapes = {port.name: port.shape for port in (*interface.inputs, *interface.outputs)}
    for value in (*graph.inputs, *graph.outputs):
        own = shapes[value.name]
        inferred = own if value.shape is None else value.shape
        sizes = [size if isinstance(size, int) else known for size, known in zip(inferred, own, strict=True)]
        named = ["batch" if axis == 0 else f"{value.name}_{axis}" for axis in range(len(sizes))]
        value.shape = ir.Shape([name if size is None else size for size, name in zip(sizes, named, strict=True)])
