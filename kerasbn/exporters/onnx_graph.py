"""The same function as a simpler graph: smaller in the file, and faster in ONNX Runtime."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

_ANY_SIZE = 2**63


def simplify(model: ir.Model) -> None:
    """Work out what initializers alone decide, once for all, and drop what nothing uses."""
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)  # ahead of folding: a weight that is used twice is stored once
    fold_constants(model, onnx_shape_inference=True, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
    common.RemoveUnusedNodesPass()(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
