"""Build a Keras model from a graph, by calling its operations again.

The replay is checked: every call must yield the shapes and dtypes that the graph says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, cast

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError, quoted
from kerasbn.graph.carry import (
    build_like,
    carry_description,
    carry_flags,
    carry_rest,
    carry_settings,
    carry_variables,
    initial_values,
)
from kerasbn.graph.clone import clone, made_from, make
from kerasbn.graph.model import CallSite, Graph, LayerSpec, Operation, Value, type_of
from kerasbn.graph.steps import on_each_step


@dataclasses.dataclass(frozen=True, eq=False)
class Built:
    """A built model.

    Attributes:
        model: The Keras model.
        successors: For each variable of the source that lives on, by its `id`, the variable of
            the built model that took its place. A reused variable is its own successor.
        made: What became of each operation.
    """

    model: keras.Model
    successors: Mapping[int, keras.Variable]
    made: Mapping[Operation, keras.Operation]

    def layer_of(self, spec: LayerSpec) -> keras.layers.Layer:
        """The layer that a spec has become, whatever other edits have changed of it."""
        asked = {each.asked_for: each for each in self.made if isinstance(each, LayerSpec) and each.asked_for}
        return cast("keras.layers.Layer", self.made[asked.get(spec, spec)])


def build(graph: Graph, *, copy: bool = True) -> Built:
    """Build the Keras model that a graph describes.

    Args:
        graph: The graph.
        copy: Whether the model gets copies of all layers and weights. If not, the layers of the
            source are called again as they are, weights and all.

    Raises:
        UnsupportedModelError: if a layer cannot be rebuilt from its configuration, copies of two
            layers that hold the same weight would not share it, or a call yields other shapes or
            dtypes than the graph says.
    """
    layers = _keras.sublayers(graph.model)
    with _keras.room_for_depth(len(graph.sites)):
        try:
            with _keras.forgotten_calls(layers, if_done=False), _keras.deferred_variables():
                built = _Builder(graph, copy).build()
        except ValueError as error:
            # A layer that makes a variable from an array, such as a stateful RNN.
            if not _keras.refused_to_defer(error):
                raise
            with _keras.forgotten_calls(layers, if_done=False):
                built = _Builder(graph, copy).build()
    for operation, made in built.made.items():
        _complete(operation, made)
    _keras.list_parameters(built.model)
    return built


class _Builder:
    """One build: the operations and tensors made so far."""

    def __init__(self, graph: Graph, copy: bool) -> None:
        self._graph = graph
        self._copy = copy
        self._operations: dict[Operation, keras.Operation] = {}
        self._tensors: dict[Value, keras.KerasTensor] = {}
        self._successors: dict[int, keras.Variable] = {}

    def build(self) -> Built:
        """Make the model, and give every layer its weights."""
        model = self._model(self._graph, self._graph.name)
        for operation, made in self._operations.items():
            self._fill(operation, made)
        return Built(model, self._successors, self._operations)

    def _model(self, graph: Graph, name: str) -> Any:
        source = graph.model
        model: keras.layers.Layer
        if (step := on_each_step(graph)) is not None:
            model = keras.layers.TimeDistributed(self._operation(step), name=name)
        elif isinstance(source, keras.Sequential):
            model = self._sequential(graph, name)
        else:
            model = self._functional(graph, name)
        _keras.set_own_trainable(model, source.trainable)
        model.dtype_policy = source.dtype_policy
        return model

    def _sequential(self, graph: Graph, name: str) -> keras.Sequential:
        given, *sites = graph.sites
        layers = [site for site in sites if _is_layer(site.operation)]  # Keras works out masks by itself, again
        own = _keras.is_constructed_from_graph(type(graph.model))
        kind = type(graph.model) if own else keras.Sequential
        model = kind([_fresh_input(given), *map(self._operation, layers)], name=name)
        calls = [call for call in _keras.recorded_calls(_keras.functional_of(model)) if _is_layer(call.operation)]
        for site, call in zip(layers, calls, strict=True):
            _check(site, call.outputs)
        return model

    def _functional(self, graph: Graph, name: str) -> keras.Model:
        for site in graph.sites:
            self._tensors.update(zip(site.outputs, self._call(site), strict=True))
        source = _keras.functional_of(graph.model)
        own = source is not None and _keras.is_constructed_from_graph(type(graph.model))
        kind = type(graph.model) if own else keras.Model
        model = kind(
            inputs=keras.tree.map_structure(self._tensor, graph.inputs),
            outputs=keras.tree.map_structure(self._tensor, graph.outputs),
            name=name,
        )
        if source is not None:  # losses and metrics go by the names, whatever was inserted behind the layers of theirs
            model.output_names = list(source.output_names)
        return model

    def _call(self, site: CallSite) -> list[Any]:
        if site.is_input:
            return [_fresh_input(site).output]
        operation = self._operation(site)
        args = keras.tree.map_structure(self._tensor, site.args)
        kwargs = keras.tree.map_structure(self._tensor, dict(site.kwargs))
        if operation is _source_of(site.operation) or not isinstance(operation, keras.layers.Layer):
            # Built already, and called on what it was called on before: the outcome is known.
            return _keras.wire(operation, args, kwargs, [value.spec for value in site.outputs])
        try:
            outputs: list[Any] = keras.tree.flatten(operation(*args, **kwargs))
        except Exception as error:
            if isinstance(error, ValueError) and _keras.refused_to_defer(error):
                raise
            raise UnsupportedModelError(
                f"Layer {site.address} ({type(operation).__name__}) cannot be called again on its inputs: "
                f"{quoted(error)}. If the layer depends on state that its configuration does not hold, rewrite with "
                "copy=False."
            ) from error
        if any(_keras.operation_of(output) is not operation for output in outputs):
            raise UnsupportedModelError(
                f"Layer {site.address} ({type(operation).__name__}) does something besides its call in its __call__, "
                "which Keras records as well and so does twice. Move that into its call, or rewrite with copy=False."
            )
        _check(site, outputs)
        return outputs

    def _tensor(self, leaf: Any) -> Any:
        return self._tensors[leaf] if isinstance(leaf, Value) else leaf

    def _operation(self, site: CallSite) -> keras.Operation:
        if site.operation not in self._operations:
            self._operations[site.operation] = self._make(site.operation, site.name)
        return self._operations[site.operation]

    def _make(self, operation: Operation, name: str) -> keras.Operation:
        """What is called in the model to be. What is new goes by the name that it has in the graph."""
        if isinstance(operation, LayerSpec):
            return _made(operation.named(name))
        if isinstance(operation, Graph):
            return self._model(operation, name) if self._copy or operation.edited else operation.model
        if not isinstance(operation, keras.layers.Layer):
            return _keras.detached(operation)
        if not self._copy:
            return operation
        twin = clone(operation)
        twin.name = name
        return twin

    def _fill(self, operation: Operation, made: keras.Operation) -> None:
        """Give a layer its weights and what else its source holds."""
        if not isinstance(made, keras.layers.Layer):
            return
        if made is _source_of(operation):
            self._successors.update((id(variable), variable) for variable in made.variables)
        elif isinstance(operation, LayerSpec):
            for spec, layer in made_from(operation, made):
                if type(spec.origin) is spec.cls:
                    build_like(spec.origin, layer)
                self._start(layer, initial_values(spec, layer))
        elif not isinstance(operation, Graph):  # what is inside a graph is filled for itself
            build_like(operation, made)
            self._start(made, carry_variables(operation, made))

    def _start(self, layer: keras.layers.Layer, pairs: Iterable[tuple[keras.Variable, Any]]) -> None:
        """Give a layer's variables their values; what the source shares between layers stays shared."""
        for variable, value in pairs:
            _keras.set_value(variable, value)
            if isinstance(value, keras.Variable):
                shared = self._successors.setdefault(id(value), variable)
                if shared is not variable and not _keras.shares(layer, variable, shared):
                    raise UnsupportedModelError(
                        f"Layer {layer.name!r} ({type(layer).__name__}) holds the weight {value.path!r} of another "
                        "layer, and copies of the two would no longer share it. Rewrite with copy=False, which reuses "
                        "both as they are."
                    )


def _complete(operation: Operation, made: keras.Operation) -> None:
    """Give a new layer what has to wait until its variables have their values."""
    if not isinstance(made, keras.layers.Layer) or made is _source_of(operation) or isinstance(operation, Graph):
        return
    if isinstance(operation, keras.layers.Layer):
        carry_rest(operation, made)
    elif isinstance(operation, LayerSpec):
        for spec, layer in made_from(operation, made):
            layer.trainable = spec.config.get("trainable", True)
            if spec.origin is not None:
                if type(spec.origin) is spec.cls:
                    carry_settings(spec.origin, layer, clone(spec.origin))
                carry_flags(spec.origin, layer)


def _made(spec: LayerSpec) -> keras.layers.Layer:
    try:
        return make(spec)
    except Exception as error:
        if isinstance(error, ValueError) and _keras.refused_to_defer(error):
            raise
        raise UnsupportedModelError(
            f"Layer {spec.name!r} cannot be made anew, as {spec.cls.__module__}.{spec.cls.__name__}: "
            f"{quoted(error.__context__ or error)}. Set that right on the layer in the source, and try again."
        ) from error


def _source_of(operation: Operation) -> Any:
    return operation.model if isinstance(operation, Graph) else operation


def _fresh_input(site: CallSite) -> keras.layers.InputLayer:
    layer: Any = site.operation
    twin = type(layer).from_config(layer.get_config())
    carry_description(layer, twin)
    return twin


def _check(site: CallSite, outputs: list[keras.KerasTensor]) -> None:
    expected = [(value.shape, value.spec.dtype) for value in site.outputs]
    got = [(tuple(tensor.shape), tensor.dtype) for tensor in outputs]
    if got != expected:
        raise UnsupportedModelError(
            f"Call {site.address} yields {got} where the model has {expected}. The layer depends on something "
            "that its configuration does not hold; rewrite with copy=False, which reuses it as it is."
        )


def _is_layer(operation: Operation) -> bool:
    return issubclass(type_of(operation), keras.layers.Layer)
