"""A traced model as ONNX, through tf2onnx, which gets to see of its weights their shapes alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
import tensorflow as tf

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.exporters.inference import InferenceFunction, frozen
from kerasbn.exporters.onnx_stable import numbered
from kerasbn.exporters.recurrent_operators import RecurrentOperators


def converted(traced: InferenceFunction, operators: RecurrentOperators, opset: int) -> tuple[ir.Model, set[str]]:
    """A model that was traced with weights as arguments, in ONNX, and the names of these weights.

    They are initializers, which copy nothing, with the names of their variables.

    Raises:
        UnsupportedModelError: if it computes something that ONNX has no form for, or holds a vocabulary.
    """
    function = frozen(traced)
    ports = (*traced.interface.inputs, *traced.interface.outputs)
    own = len(traced.interface.inputs)
    served = [tensor.name for tensor in (*function.inputs[:own], *function.outputs)]
    renamed = dict(zip(served, [port.name for port in ports], strict=True))
    proto = _through_tf2onnx(function, renamed, operators, opset)
    _refuse_foreign(proto, traced.model, opset)
    model = ir.from_proto(proto)
    weights = zip((tensor.name for tensor in function.inputs[own:]), traced.weights, strict=True)
    return model, _hold(model.graph, dict(weights))


def _through_tf2onnx(
    function: Any, renamed: Mapping[str, str], operators: RecurrentOperators, opset: int
) -> onnx.ModelProto:
    """What tf2onnx makes of a function, without its merging of nodes, which keeps any one of them."""
    from tf2onnx import optimizer, tfonnx

    optimizers = {
        "transposes": optimizer.TransposeOptimizer,
        "upsampling": optimizer.UpsampleOptimizer,
        "constants": optimizer.ConstFoldOptimizer,
        "loops": optimizer.LoopOptimizer,
        "reshapes": optimizer.ReshapeOptimizer,
        "pooling": optimizer.GlobalPoolOptimizer,
        "identities": optimizer.IdentityOptimizer,
        "back to back": optimizer.BackToBackOptimizer,
        "einsum": optimizer.EinsumOptimizer,
    }
    graph_def = function.graph.as_graph_def(add_shapes=True)
    _strip_xla_marks(graph_def)
    inputs, outputs = ([tensor.name for tensor in side] for side in (function.inputs, function.outputs))
    with tf.device("/cpu:0"), tf.Graph().as_default() as graph:
        tf.import_graph_def(tfonnx.tf_optimize(inputs, outputs, graph_def), name="")
        converted = tfonnx.process_tf_graph(
            graph,
            continue_on_error=True,
            input_names=inputs,
            output_names=outputs,
            opset=opset,
            custom_op_handlers={**_handlers(), "PyFunc": (operators.write, [])},
            tensors_to_rename=renamed,
        )
        return optimizer.optimize_graph(converted, optimizers=optimizers).make_model("")


def _hold(graph: ir.Graph, weights: Mapping[str, keras.Variable]) -> set[str]:
    """Make initializers of the inputs that stand for weights, and say what they are called."""
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    held = [value for value in graph.inputs if value.name in weights]
    for value in held:
        variable, dtype = weights[value.name], tf.as_dtype(value.dtype.numpy())
        array = np.asarray(variable.value if variable.dtype == dtype.name else tf.cast(variable.value, dtype))
        graph.inputs.remove(value)
        value.name = next(name for name in numbered(variable.path) if name not in taken)
        taken.add(value.name)
        value.const_value = ir.tensor(array)
        graph.register_initializer(value)
    return {value.name for value in held}


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


def _refuse_foreign(proto: onnx.ModelProto, model: keras.Model, opset: int) -> None:
    if foreign := {node.op_type: node.name for node in _nodes(proto.graph) if not _is_known(node, opset)}:
        what = ", ".join(f"{op_type} (in {_where(path, model)})" for op_type, path in foreign.items())
        raise UnsupportedModelError(
            f"Model {model.name!r} computes {what}, which ONNX opset {opset} has no form for. "
            "Export to SavedModel instead, or replace the layers that compute it."
        )


def _where(path: str, model: keras.Model) -> str:
    """The path of the layer that a node belongs to, if it has one: TensorFlow may number the names there."""
    names = [layer.name for layer in _keras.sublayers(model) if layer is not model]
    scopes = [
        next((name for name in names if re.fullmatch(rf"{re.escape(name)}(_\d+)?", each)), None)
        for each in path.split("/")
    ]
    layer = "/".join(dict.fromkeys(filter(None, scopes)))
    return f"layer {layer!r}" if layer else path


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _is_known(node: onnx.NodeProto, opset: int) -> bool:
    return bool(onnx.defs.has(node.op_type, opset, node.domain)) or node.domain not in ("", "ai.onnx")
