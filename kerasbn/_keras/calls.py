"""Symbolic calls: the graph that Keras records, and what travels with its tensors."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.models.functional import Functional
from keras.src.ops.node import Node


class Call(NamedTuple):
    """A call that Keras recorded: what was called, with what, and what came out."""

    operation: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[keras.KerasTensor]


def recorded_calls(functional: Functional) -> list[Call]:
    """The calls of a graph, each after those that it depends on. `Function._nodes_by_depth`."""
    nodes = [
        node
        for depth in sorted(functional._nodes_by_depth, reverse=True)
        for node in functional._nodes_by_depth[depth]
        if not node.is_input
    ]
    return [Call(node.operation, node.arguments.args, node.arguments.kwargs, node.outputs) for node in nodes]


def calls_between(inputs: Iterable[keras.KerasTensor], outputs: Iterable[keras.KerasTensor]) -> list[Call]:
    """The calls that lead from symbolic inputs to outputs, each after those that it depends on.

    By `KerasTensor._keras_history`, for as long as nothing of it was forgotten.
    """
    entering = {id(tensor) for tensor in inputs}
    found: dict[int, Call] = {}
    waiting = [(tensor, False) for tensor in reversed(list(outputs))]
    while waiting:
        tensor, ready = waiting.pop()
        if id(tensor) in entering:
            continue
        operation, index, _ = tensor._keras_history
        node = operation._inbound_nodes[index]
        if ready:
            found.setdefault(id(node), Call(operation, node.arguments.args, node.arguments.kwargs, node.outputs))
        elif id(node) not in found:
            waiting.append((tensor, True))
            waiting += [(each, False) for each in reversed(node.input_tensors)]
    return list(found.values())


@contextlib.contextmanager
def forgotten_calls(layers: Iterable[keras.layers.Layer], *, if_done: bool = True) -> Iterator[None]:
    """Symbolic calls of these layers made inside leave no record: `Operation._inbound_nodes`, `_outbound_nodes`.

    Models made of them run on, but cannot be saved any more.

    Args:
        layers: The layers.
        if_done: Whether that goes for what is done without an error, too. Defaults to `True`.
    """
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    forget = True
    try:
        yield
        forget = if_done
    finally:
        for layer, inbound, outbound in before if forget else ():
            del layer._inbound_nodes[inbound:]
            del layer._outbound_nodes[outbound:]


def call_order(tensor: keras.KerasTensor) -> int:
    """Which of its operation's calls a tensor came from. `KerasTensor._keras_history`."""
    return int(tensor._keras_history.node_index)


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """The operation that a tensor came from. `KerasTensor._keras_history`."""
    return tensor._keras_history.operation


def tensors_of_calls(operation: keras.Operation) -> list[tuple[list[keras.KerasTensor], list[keras.KerasTensor]]]:
    """The inputs and the outputs of an operation's symbolic calls: `Operation._inbound_nodes`."""
    return [(node.input_tensors, node.outputs) for node in operation._inbound_nodes]


def input_layer_of(tensor: keras.KerasTensor) -> keras.layers.InputLayer:
    return tensor._keras_history.operation


def wire(operation: keras.Operation, args: Any, kwargs: Any, specs: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
    """Record a call whose outcome is known, without making it.

    What `keras.src.models.functional.clone_graph_nodes` does for models of intermediate tensors.
    """
    outputs = [
        keras.KerasTensor(spec.shape, dtype=spec.dtype, sparse=spec.sparse, ragged=spec.ragged) for spec in specs
    ]
    Node(operation, call_args=args, call_kwargs=kwargs, outputs=outputs)
    return outputs


def detached(operation: keras.Operation) -> keras.Operation:
    """A copy of an operation without weights, with no call recorded yet.

    Not by `copy.copy`: Keras makes that a whole save and load, which not every operation survives.
    """
    twin = object.__new__(type(operation))
    twin.__dict__.update(operation.__dict__)
    twin._inbound_nodes = []
    twin._outbound_nodes = []
    return twin


def operation_name(operation: keras.Operation) -> str | None:
    """The name of one of Keras's own operations, `"HardSigmoid"`; `None` for layers and others' operations."""
    kind = type(operation)
    if isinstance(operation, keras.layers.Layer) or not kind.__module__.startswith(
        ("keras.src.ops.", "keras.src.activations.")
    ):
        return None
    return kind.__name__


@functools.cache
def operation_classes() -> Mapping[str, type[keras.Operation]]:
    """Keras's own operations, by the names of their classes."""
    names = ("ops.core", "ops.image", "ops.linalg", "ops.math", "ops.nn", "ops.numpy", "activations.activations")
    modules = [importlib.import_module(f"keras.src.{name}") for name in names]
    held = {name: kind for module in modules for name, kind in vars(module).items() if inspect.isclass(kind)}
    return {
        name: kind
        for name, kind in held.items()
        if issubclass(kind, keras.Operation) and kind.__module__ in [module.__name__ for module in modules]
    }


def knows_training(operation: Any) -> bool:
    """Whether an operation is a layer whose call takes `training`. `Layer._call_has_training_arg`."""
    return isinstance(operation, keras.layers.Layer) and bool(operation._call_has_training_arg)


def training_by_default(operation: Any) -> Any:
    """What a layer takes `training` to be where nothing says, which Keras records as told. `Layer._call_signature`."""
    if not knows_training(operation):
        return None
    parameter = operation._call_signature.parameters.get("training")
    return None if parameter is None else parameter.default


def mask_of(tensor: Any) -> Any:
    """The mask that travels with a tensor, `None` if there is none."""
    return get_keras_mask(tensor)


def set_mask(tensor: Any, mask: Any) -> None:
    """Have a mask travel with a tensor."""
    set_keras_mask(tensor, mask)


@contextlib.contextmanager
def room_for_depth(depth: int) -> Iterator[None]:
    """Let Keras walk a graph of this depth: its walk recurses once for each call on the way."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 1000 + 3 * depth))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
