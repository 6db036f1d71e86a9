"""Read a Keras model into a graph."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.graph.model import CallSite, Graph, Value


def read(model: keras.Model) -> Graph:
    """Read a Sequential or Functional model, and the models inside it.

    A subclassed model inside is a layer like any other, not looked into.

    Raises:
        UnsupportedModelError: for a model of another kind, and one that was not built yet.
    """
    return _read(model, "", {})


def _read(model: keras.Model, prefix: str, known: dict[int, Graph]) -> Graph:
    functional = _functional(model)
    values: dict[int, Value] = {}

    def value_of(tensor: Any) -> Any:
        if not isinstance(tensor, keras.KerasTensor):
            return tensor
        return values.setdefault(id(tensor), Value(tensor))

    recorded = _keras.recorded_calls(functional)
    numbers: dict[int, dict[int, int]] = defaultdict(dict)
    for order, identity in sorted((_keras.call_order(call.outputs[0]), id(call.operation)) for call in recorded):
        numbers[identity][order] = len(numbers[identity])

    inputs = keras.tree.map_structure(value_of, _keras.input_structure(functional))
    sites = [_input_site(value, prefix) for value in keras.tree.flatten(inputs)]
    for call in recorded:
        path = prefix + call.operation.name
        operation = call.operation
        if isinstance(operation, keras.Model) and _keras.is_graph(operation):
            if id(operation) not in known:
                known[id(operation)] = _read(operation, f"{path}/", known)
            operation = known[id(operation)]
        sites.append(
            CallSite(
                operation=operation,
                path=path,
                call=numbers[id(call.operation)][_keras.call_order(call.outputs[0])],
                args=keras.tree.map_structure(value_of, call.args),
                kwargs=keras.tree.map_structure(value_of, call.kwargs),
                outputs=tuple(value_of(tensor) for tensor in call.outputs),
            )
        )
    return Graph(
        model=model,
        inputs=inputs,
        outputs=keras.tree.map_structure(value_of, _keras.output_structure(functional)),
        sites=tuple(sites),
    )


def _input_site(value: Value, prefix: str) -> CallSite:
    layer = _keras.input_layer_of(value.spec)
    return CallSite(layer, prefix + layer.name, call=0, args=(), kwargs={}, outputs=(value,))


def _functional(model: keras.Model) -> Any:
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            f"Expected a Keras 3 model (keras.Sequential or keras.Model), got {type(model).__module__}."
            f"{type(model).__name__}. Load the model with keras.models.load_model first."
        )
    functional = _keras.functional_of(model)
    if functional is None:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) has no graph yet: it was not built, or its input is "
            "not one tensor. Begin it with keras.Input(shape), or call model.build(input_shape) first."
        )
    behaviour = _keras.own_behaviour(model)
    if "call" in behaviour or (behaviour and not _keras.is_constructed_from_tensors(type(model))):
        raise UnsupportedModelError(
            f"Model {model.name!r} is a {type(model).__name__}, which overrides {', '.join(behaviour)}; that would be "
            "lost, as a rewritten model cannot go through its __init__. Rewrite keras.Model(model.inputs, "
            "model.outputs), or let the class take (inputs, outputs) as keras.Model does."
        )
    return functional
