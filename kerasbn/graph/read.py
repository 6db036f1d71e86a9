"""Read a Keras model into a graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.graph.model import CallSite, Graph, Operation, Value
from kerasbn.graph.steps import goes_along_steps, graph_of_steps
from kerasbn.serializable import BatchNormalization, BatchNormalizedRNN


def read(model: keras.Model) -> Graph:
    """Read a Sequential or Functional model, and the models inside it.

    A subclassed model inside is a layer like any other, not looked into.

    Raises:
        UnsupportedModelError: for a model of another kind, one that was not built yet, and one whose
            class does what a model built from the graph would not.
    """
    graph = _read(model, "", {})
    behaviour = _keras.own_behaviour(model)
    if "call" in behaviour or (behaviour and not _keras.is_constructed_from_graph(type(model))):
        raise UnsupportedModelError(
            f"Model {model.name!r} is a {type(model).__name__}, which overrides {', '.join(behaviour)}; that would be "
            "lost, as a rewritten model cannot go through its __init__. Rewrite keras.Model(model.inputs, "
            "model.outputs), or let the class take (inputs, outputs) as keras.Model does."
        )
    return graph


def read_to_run(model: keras.Model) -> Graph:
    """Read what calling a Sequential or Functional model runs, whatever its class does besides.

    Raises:
        UnsupportedModelError: for a model of another kind, and one that was not built yet.
    """
    check_model(model)
    if "call" in _keras.own_behaviour(model):
        raise UnsupportedModelError(
            f"Model {model.name!r} is a {type(model).__name__}, whose call is its own, so there is no graph of it to "
            "look into. Pass the Sequential and Functional models that it holds, one by one."
        )
    return read_part(model, "", {})


_OURS = (BatchNormalization, BatchNormalizedRNN)


def is_custom(operation: Operation) -> bool:
    """Whether an operation is a layer or model of the user's own, which has no graph."""
    if not isinstance(operation, keras.layers.Layer) or _keras.is_keras_own(type(operation)):
        return False
    if type(operation) in _OURS:
        return False
    return not (isinstance(operation, keras.Model) and _keras.is_graph(operation))


def read_part(model: keras.Model, path: str, known: dict[int, Graph]) -> Graph:
    """Read a model that is a part of something else, whatever its class does besides.

    Args:
        model: The model.
        path: Its path there.
        known: The graphs of models that were read before, by the `id` of the model; filled up.
    """
    if id(model) not in known:
        known[id(model)] = _read(model, f"{path}/" if path else "", known)
    return known[id(model)]


def read_call(layer: keras.layers.Layer, inputs: Any, outputs: Any, path: str, known: Mapping[int, Graph]) -> Graph:
    """Read what a layer did when it was called on symbolic inputs: a graph whose model is the layer itself.

    Args:
        layer: The layer.
        inputs: The structure of its inputs, each the output of an `InputLayer`.
        outputs: The structure of what it returned.
        path: The layer's path.
        known: The graphs of models that were read before, by the `id` of the model.
    """
    calls = _keras.calls_between(keras.tree.flatten(inputs), keras.tree.flatten(outputs))
    return _Reader(layer, calls, f"{path}/", dict(known)).graph(inputs, outputs)


def _read(model: keras.Model, prefix: str, known: dict[int, Graph]) -> Graph:
    functional = _functional(model)
    reader = _Reader(model, _keras.recorded_calls(functional), prefix, known)
    return reader.graph(_keras.input_structure(functional), _keras.output_structure(functional))


class _Reader:
    """Reads the calls of one model. The graphs of the models inside are known by the `id` of their model."""

    def __init__(
        self, model: keras.layers.Layer, calls: Sequence[_keras.Call], prefix: str, known: dict[int, Graph]
    ) -> None:
        self._model = model
        self._calls = calls
        self._prefix = prefix
        self._known = known
        self._values: dict[int, Value] = {}
        self._numbers: dict[int, dict[int, int]] = defaultdict(dict)
        for order, identity in sorted((_order(call), id(call.operation)) for call in calls):
            self._numbers[identity][order] = len(self._numbers[identity])

    def graph(self, inputs: Any, outputs: Any) -> Graph:
        """The graph between tensors, in the structures given."""
        entering = self._values_of(inputs)
        return Graph(
            model=self._model,
            inputs=entering,
            outputs=self._values_of(outputs),
            sites=(*map(self._input, keras.tree.flatten(entering)), *map(self._call, self._calls)),
        )

    def _input(self, value: Value) -> CallSite:
        layer = _keras.input_layer_of(value.spec)
        return CallSite(layer, self._prefix + layer.name, call=0, args=(), kwargs={}, outputs=(value,))

    def _call(self, call: _keras.Call) -> CallSite:
        path = self._prefix + call.operation.name
        return CallSite(
            operation=self._operation(call.operation, path),
            path=path,
            call=self._numbers[id(call.operation)][_order(call)],
            args=self._values_of(call.args),
            kwargs=self._values_of(call.kwargs),
            outputs=tuple(self._values_of(call.outputs)),
        )

    def _operation(self, operation: keras.Operation, path: str) -> keras.Operation | Graph:
        if goes_along_steps(operation):
            if id(operation) not in self._known:
                self._known[id(operation)] = graph_of_steps(operation, path, self._operation)
            return self._known[id(operation)]
        if not isinstance(operation, keras.Model) or not _keras.is_graph(operation):
            return operation
        return read_part(operation, path, self._known)

    def _values_of(self, structure: Any) -> Any:
        """A structure with a value in the place of each tensor."""

        def value_of(leaf: Any) -> Any:
            return self._values.setdefault(id(leaf), Value(leaf)) if isinstance(leaf, keras.KerasTensor) else leaf

        return keras.tree.map_structure(value_of, structure)


def _order(call: _keras.Call) -> int:
    return _keras.call_order(call.outputs[0])


def check_model(model: Any) -> None:
    """Refuse what is no model of Keras 3.

    Raises:
        UnsupportedModelError: if it is none.
    """
    if isinstance(model, keras.Model):
        return
    kind = f"{type(model).__module__}.{type(model).__name__}"
    remedy = "Load the model with keras.models.load_model first"
    if any(each.__module__.partition(".")[0] == "tf_keras" for each in type(model).__mro__):
        remedy = "It is one of Keras 2: write it with model.save('model.h5'), and load that file with Keras 3"
    raise UnsupportedModelError(f"Expected a Keras 3 model (keras.Sequential or keras.Model), got {kind}. {remedy}.")


def is_built(model: keras.Model) -> bool:
    """Whether a model was built, or all that it holds: a `train_step` of its own may call that and never the model."""
    inside = _keras.sublayers(model)[1:]
    return model.built or (bool(inside) and all(layer.built for layer in inside))


def _functional(model: keras.Model) -> Any:
    check_model(model)
    functional = _keras.functional_of(model)
    if functional is None:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) has no graph yet: it was not built, or its input is "
            "not one tensor. Begin it with keras.Input(shape), or call model.build(input_shape) first."
        )
    return functional
