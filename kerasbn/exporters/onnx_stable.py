"""The order and the names of a graph, the same in every run: the converter's sets and counters decide them else."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import FOLDED_FROM_KEY


def put_in_order(model: ir.Model) -> None:
    """Order nodes as the outputs ask for them, and initializers as the nodes do."""
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    bodies = [graph for graph in model.graphs() if graph is not model.graph]
    for body in bodies:
        _bypass_identities(body)
    common.OutputFixPass()(model)
    for graph in (model.graph, *bodies):
        _sort(graph)
    used = _used_initializers(model.graph)
    model.graph.initializers.clear()
    for value in used:
        model.graph.register_initializer(value)


def numbered(name: str) -> Iterator[str]:
    """A name, and what it becomes where it is taken already."""
    return itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))


def _bypass_identities(body: ir.Graph) -> None:
    """Which of two outputs that are one value goes through an Identity is the converter's whim."""
    for number, value in enumerate(body.outputs):
        node = value.producer()
        if node and node.op_type == "Identity" and node.inputs[0].producer():
            body.outputs[number] = node.inputs[0]


def _sort(graph: ir.Graph) -> None:
    order: dict[ir.Node, None] = {}
    waiting = [value.producer() for value in reversed(graph.outputs)]
    while waiting:
        node = waiting[-1]
        ahead = [] if node is None or node in order else [each for each in _needed(node) if each not in order]
        if ahead:
            waiting += reversed(ahead)
            continue
        waiting.pop()
        if node is not None and node.graph is graph:
            order.setdefault(node)
    for node in order:
        graph.append(node)


def _needed(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of its graph that a node takes values from, also inside the bodies of a loop."""
    nodes = [node, *(inner for body in _bodies(node) for inner in body.all_nodes())]
    for value in (value for each in nodes for value in each.inputs):
        producer = value and value.producer()
        if producer and producer.graph is node.graph:
            yield producer


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def name(model: ir.Model, weights: set[str]) -> None:
    """Take from names what the converter counts up, and from shapes the open sizes that it names so.

    Args:
        model: The model, which is changed.
        weights: The names of the initializers whose names are to be kept.
    """
    graph = model.graph
    _name_initializers(graph, weights)
    outside = {*graph.inputs, *graph.outputs}
    for node in graph:
        node.name = _stable(node.name or node.op_type)
        _name_values([each for each in node.outputs if each not in outside], node.name)
        for body in _bodies(node):
            _name_body(body, node.name)
    common.NameFixPass()(model)


def _name_body(graph: ir.Graph, name: str) -> None:
    """The body of a loop, in whose names the converter's choices show most: after what the nodes do."""
    graph.name = name
    _name_values(graph.inputs, f"{name}/input")
    for node in graph:
        node.name = f"{name}/{node.op_type}"
        _name_values(node.outputs, node.name)
        for body in _bodies(node):
            _name_body(body, node.name)


def _name_values(values: Sequence[ir.Value], name: str) -> None:
    for number, value in enumerate(values):
        value.name = f"{name}:{number}" if number else name
        value.shape = value.shape and ir.Shape([size if isinstance(size, int) else None for size in value.shape])


def _name_initializers(graph: ir.Graph, weights: set[str]) -> None:
    """What was worked out from one weight alone, such as a kernel that was transposed, is named as that weight."""
    taken = {value.name for value in graph.outputs}
    used = _used_initializers(graph)
    graph.initializers.clear()
    for value in used:
        sources = weights & {value.name, *value.meta.get(FOLDED_FROM_KEY, ())}
        value.metadata_props.pop(FOLDED_FROM_KEY, None)
        if not value.is_graph_output():
            name = sources.pop() if len(sources) == 1 else _stable(value.name)
            value.name = next(each for each in numbered(name) if each not in taken)
            taken.add(value.name)
        graph.register_initializer(value)


def _used_initializers(graph: ir.Graph) -> list[ir.Value]:
    """The initializers in the order of their use."""
    values = [*(value for node in graph.all_nodes() for value in node.inputs), *graph.outputs]
    held = set(graph.initializers.values())
    return list(dict.fromkeys(value for value in values if value in held))


def _stable(name: str) -> str:
    """A name without the numbers that tf2onnx and TensorFlow make it unique by, in the process."""
    return re.sub(r"(__\d+)+|(?<=_cond)(_frozen)?_\d+|(?<=einsum)\d+|:\d+$", "", name)
