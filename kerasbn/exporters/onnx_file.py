"""Write ONNX files, through tf2onnx."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from kerasbn.errors import UnsupportedModelError, VerificationError, quoted
from kerasbn.exporters.inference import InferenceFunction, frozen, trace
from kerasbn.exporters.recurrent_operators import RecurrentOperators
from kerasbn.exporters.settings import Settings
from kerasbn.verification.interface import Arrays, Interface


def write(model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
    """Write a model as ONNX.

    Returns:
        The number of nodes.

    Raises:
        UnsupportedModelError: if the model uses something that ONNX has no form for.
        VerificationError: if the ONNX checker refuses the outcome.
    """
    operators = RecurrentOperators()
    with operators.traced(model):
        traced = trace(model, interface)
    proto = _convert(traced, operators, model.name, settings.opset)
    _name_open_dimensions(proto, interface)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(
            f"The ONNX form of model {model.name!r} is not valid: {quoted(error)}. The file was not kept."
        ) from error
    onnx.save(proto, str(path))
    return len(proto.graph.node)


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


def _convert(traced: InferenceFunction, operators: RecurrentOperators, name: str, opset: int) -> onnx.ModelProto:
    import tf2onnx

    function = frozen(traced)
    graph_def = function.graph.as_graph_def(add_shapes=True)
    _strip_xla_marks(graph_def)
    inputs = [tensor.name for tensor in function.inputs]
    outputs = [tensor.name for tensor in function.outputs]
    ports = (*traced.interface.inputs, *traced.interface.outputs)
    renamed = dict(zip([*inputs, *outputs], [port.name for port in ports], strict=True))
    with _silent_logs():
        proto, _ = tf2onnx.convert.from_graph_def(
            graph_def,
            name=name,
            input_names=inputs,
            output_names=outputs,
            opset=opset,
            custom_op_handlers={**_handlers(), "PyFunc": (operators.write, [])},
            tensors_to_rename=renamed,
        )
    if foreign := {node.op_type: node.name for node in _nodes(proto.graph) if not _is_known(node, opset)}:
        what = ", ".join(f"{op_type} (in {where})" for op_type, where in foreign.items())
        raise UnsupportedModelError(
            f"Model {name!r} computes {what}, which ONNX opset {opset} has no form for. "
            "Export to SavedModel instead, or replace the layers that compute it."
        )
    proto.producer_name = "kerasbn"
    proto.graph.name = name
    return proto


def _strip_xla_marks(graph_def: Any) -> None:
    """Let functions be inlined that Keras has XLA compile, such as grouped convolutions."""
    functions = graph_def.library.function
    nodes = [node for function in functions for node in function.node_def]
    for marked in (*functions, *nodes, *graph_def.node):
        for mark in ("_XlaMustCompile", "_noinline"):
            marked.attr.pop(mark, None)


def _handlers() -> dict[str, tuple[Callable[..., Any], list[Any]]]:
    """Operations that tf2onnx does not know, as what it knows: erfc(x) = 1 - erf(x), expm1(x) = exp(x) - 1."""

    def erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
        _compose(ctx, node, "Erf", lambda one, inner: [one, inner])

    def expm1(ctx: Any, node: Any, name: str, args: Any) -> None:
        _compose(ctx, node, "Exp", lambda one, inner: [inner, one])

    return {"Erfc": (erfc, []), "Expm1": (expm1, [])}


def _compose(ctx: Any, node: Any, inner_type: str, order: Callable[[str, str], list[str]]) -> None:
    dtype, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
    inputs, outputs = list(node.input), list(node.output)
    ctx.remove_node(node.name)
    inner = ctx.make_node(inner_type, inputs, dtypes=[dtype], shapes=[shape])
    one = ctx.make_const(f"{node.name}_one", np.array(1, onnx.helper.tensor_dtype_to_np_dtype(dtype)))
    ctx.make_node("Sub", order(one.output[0], inner.output[0]), outputs=outputs, dtypes=[dtype], shapes=[shape])


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _is_known(node: onnx.NodeProto, opset: int) -> bool:
    return bool(onnx.defs.has(node.op_type, opset, node.domain)) or node.domain not in ("", "ai.onnx")


@contextmanager
def _silent_logs() -> Iterator[None]:
    """Keep what tf2onnx and TensorFlow log in this thread from whoever handles logs; what others log goes on.

    tf2onnx writes to the root logger too, which would get a handler for good if it had none.
    """
    thread = threading.get_ident()

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    root, nowhere = logging.getLogger(), logging.NullHandler()
    handlers = {handler for name in ("", "tf2onnx", "tensorflow") for handler in logging.getLogger(name).handlers}
    root.addHandler(nowhere)
    for handler in handlers:
        handler.addFilter(from_elsewhere)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(from_elsewhere)
        root.removeHandler(nowhere)


def _name_open_dimensions(proto: onnx.ModelProto, interface: Interface) -> None:
    """Name what is open in the shapes of inputs and outputs: the batch, and the others after their tensor."""
    shapes = {port.name: port.shape for port in (*interface.inputs, *interface.outputs)}
    for info in (*proto.graph.input, *proto.graph.output):
        dims = info.type.tensor_type.shape.dim
        for axis, size in enumerate(shapes[info.name]):
            if axis >= len(dims):
                dims.add()
            if size is not None and not dims[axis].dim_value:
                dims[axis].dim_value = size
            elif not dims[axis].dim_value:
                dims[axis].dim_param = "batch" if axis == 0 else f"{info.name}_{axis}"
