"""Models that train in their own way: an object of the same class around other parts.

A class with a `train_step` of its own, such as a VAE, a GAN or a distiller, holds its networks as
attributes. These parts are what is rewritten: as a graph, the model calls each of them once. A class
of functional models whose `__init__` takes something else than tensors, such as a task of keras-hub,
has a graph itself. The new object gets the attributes of the old one, with new parts, metrics and
optimizers in their places; its class's `__init__` is not gone through.
"""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.compilation.compiled import own_metric
from kerasbn.compilation.memory import carry_memory
from kerasbn.compilation.optimizer import Tempo, successor_of
from kerasbn.errors import UnsupportedModelError, quoted
from kerasbn.graph.build import Built
from kerasbn.graph.carry import build_like, carry_attributes, carry_rest, carry_variables
from kerasbn.graph.clone import clone
from kerasbn.graph.model import CallSite, Graph, LayerSpec, Operation, Value
from kerasbn.graph.read import is_custom, read_part


def is_assembly(model: Any) -> bool:
    """Whether a model trains, tests or predicts in a way of its own, which a model made anew would lose."""
    if not isinstance(model, keras.Model) or isinstance(model, keras.Sequential) or not _own_ways(model):
        return False
    return _keras.functional_of(model) is None or (
        _keras.is_graph(model) and not _keras.is_constructed_from_graph(type(model))
    )


def graph_of_parts(model: keras.Model) -> Graph:
    """A graph that calls each part of a model once, on inputs of its own; the model's own one, if it has one.

    Raises:
        UnsupportedModelError: if the model holds no network.
    """
    if _keras.functional_of(model) is not None:
        return read_part(model, "", {})
    known: dict[int, Graph] = {}
    networks = {path: read_part(part, path, known) for path, part in _parts(model) if not is_custom(part)}
    inside = {id(operation) for graph in networks.values() for operation in graph.calls}
    calls: list[CallSite] = []
    for path, part in _parts(model):
        if path in networks:
            calls.append(_call_of_network(networks[path], path))
        elif id(part) not in inside and (call := _call_of_layer(part, path)) is not None:
            calls.append(call)
    if not calls:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) overrides {', '.join(_own_ways(model))}, and none of its "
            "attributes is a Sequential or Functional model that could be rewritten for it. Hold its network as one: "
            "self.network = keras.Sequential([...])."
        )
    inputs = [value for call in calls for value in call.inputs]
    return Graph(
        model,
        inputs,
        [value for call in calls for value in call.outputs],
        (*map(_site_of_input, inputs), *calls),
    )


def _call_of_network(graph: Graph, path: str) -> CallSite:
    given = keras.tree.map_structure(_input_like, graph.inputs)
    outputs = tuple(value.alike() for value in keras.tree.flatten(graph.outputs))
    return CallSite(graph, path, 0, args=(given,), kwargs={}, outputs=outputs)


def _call_of_layer(layer: keras.layers.Layer, path: str) -> CallSite | None:
    """A symbolic call of a layer on what it was built for, `None` if there can be none."""
    shapes, dtype = _keras.built_shapes(layer), layer.compute_dtype
    if shapes is None:
        return None
    given = keras.tree.map_shape_structure(lambda shape: keras.Input(shape[1:], dtype=dtype), shapes)
    try:
        with _keras.forgotten_calls(_keras.sublayers(layer)):
            outputs = keras.tree.flatten(layer(given))
    except Exception:  # whatever the user's own code raises
        return None
    if not all(isinstance(output, keras.KerasTensor) for output in outputs):
        return None
    values = keras.tree.map_structure(Value, given)
    return CallSite(layer, path, 0, args=(values,), kwargs={}, outputs=tuple(map(Value, outputs)))


def assembled(model: keras.Model, built: Built, tempo: Tempo, *, copy: bool) -> Built:
    """The model around the parts that were built from an edit of its graph.

    Args:
        model: The model.
        built: What was built from the edited graph.
        tempo: How optimizers are to differ.
        copy: Whether what is no part is copied as well.
    """
    functional = None if _keras.functional_of(model) is None else built.model
    twin = _keras.bare_model_like(model, functional)
    successors = dict(built.successors)
    renewal = _Renewal(model, twin, _made_of_source(built), successors, tempo, copy=copy)
    renewal.begin_with_layers()
    for name, value in _keras.own_attributes(model).items():
        setattr(twin, name, renewal.of(value))
    for _, part in _parts(model):
        renewal.of(part).name = part.name
    renewal.carry_memory()
    _keras.set_own_trainable(twin, model.trainable)
    if type(model).get_config is not keras.Model.get_config:
        twin.get_config = functools.partial(_config_of_what_it_holds, twin)
    return Built(twin, successors, built.made)


def carry_own_attributes(model: keras.Model, built: Built, tempo: Tempo, *, copy: bool) -> None:
    """Give a model of a user's class what its source holds besides its graph, for the class's own methods.

    Args:
        model: The source.
        built: What was built, of the same class, by its `__init__`.
        tempo: How optimizers are to differ.
        copy: Whether what is no part is copied as well.
    """
    carry_attributes(model, built.model)
    renewal = _Renewal(model, built.model, _made_of_source(built), dict(built.successors), tempo, copy=copy)
    renewal.begin_with_layers()
    held = vars(built.model)
    for name, value in _keras.own_attributes(model).items():
        if name not in held:
            setattr(built.model, name, renewal.of(value))
    renewal.carry_memory()


def _made_of_source(built: Built) -> dict[int, Any]:
    """What became of the source's layers and models, by their `id`."""
    return {id(source): made for each, made in built.made.items() if (source := _source_of(each)) is not None}


def _rewritten(graph: Graph) -> set[int]:
    """The layers and models of the source that a graph calls, by `id`."""
    return {id(_source_of(operation)) for operation in graph.calls}


def _source_of(operation: Operation) -> Any:
    """The layer or model of the source that an operation stands for, `None` if it is new."""
    source = operation.model if isinstance(operation, Graph) else operation
    return source.origin if isinstance(source, LayerSpec) else source


def _config_of_what_it_holds(model: keras.Model) -> dict[str, Any]:
    """What the class's `get_config` gives, if that brings back what the model holds now; else a file would be lost."""
    config: dict[str, Any] = type(model).get_config(model)
    try:
        stored = json.loads(json.dumps(keras.saving.serialize_keras_object(config)))
        with _keras.in_memory_code_allowed():
            found = _held_by(type(model).from_config(stored))
        cause = "" if found == _held_by(model) else "brings back another network, as it was before it was rewritten"
    except Exception as error:
        cause = f"does not bring it back: {quoted(error)}"
    if cause:
        networks = [f"model.{path}" for path, _ in _parts(model)]
        if _keras.functional_of(model) is not None:
            networks = ["keras.Model(model.input, model.output)"]
        raise NotImplementedError(
            f"Model {model.name!r} cannot be saved: the get_config of {type(model).__name__} {cause}. Save its "
            f"networks: {', '.join(f'{network}.save(...)' for network in networks)}. Or let __init__ take them and "
            "get_config give them, as keras.saving.serialize_keras_object(self.encoder) does."
        )
    return config


def _held_by(model: keras.Model) -> Mapping[str, list[Any]]:
    """The layers of each network that a model holds, of its own graph as well: what the weights have to fit."""
    networks = dict(_parts(model))
    if _keras.functional_of(model) is not None:
        networks[""] = model
    return {
        path: sorted(
            (type(layer).__name__, [f"{weight.shape} {weight.dtype}" for weight in layer.variables])
            for layer in _keras.sublayers(network)
            if not isinstance(layer, keras.Model | keras.layers.InputLayer)
        )
        for path, network in networks.items()
    }


_OF_A_NETWORK = ("variables", "weights", "trainable_variables", "non_trainable_variables", "non_trainable_weights")
_APART = (
    "Let it take them from the network where it uses them, as self.encoder.trainable_variables does, or leave these "
    "layers as they are, by rules that say 'skip'."
)


class _Renewal:
    """What becomes of the attributes of a model: each object of the source once."""

    def __init__(
        self,
        model: keras.Model,
        twin: keras.Model,
        made: Mapping[int, Any],
        successors: dict[int, keras.Variable],
        tempo: Tempo,
        *,
        copy: bool,
    ) -> None:
        self._model = model
        self._twin = twin
        self._done: dict[int, Any] = {id(model): twin, **made}
        self._successors = successors
        self._tempo = tempo
        self._copy = copy
        self._optimizers: list[tuple[Any, Any]] = []
        self._layers = [leaf for _, leaf in _leaves(model) if isinstance(leaf, keras.layers.Layer)]

    def begin_with_layers(self) -> None:
        """Renew what is a layer, the larger ones first: others hold what is in them, layers and weights."""
        for layer in sorted(self._layers, key=lambda each: len(_keras.sublayers(each)), reverse=True):
            self.of(layer)

    def of(self, value: Any) -> Any:
        """The new object for one of the source's; the very same one for what holds no state."""
        if isinstance(value, list | tuple) and (weights := self._weights_of_a_network(value)) is not None:
            return type(value)(weights) if type(value) in (list, tuple) else weights
        if isinstance(value, list | tuple | dict | set):
            return _mapped(value, self.of)
        if id(value) not in self._done:
            self._done[id(value)] = self._new(value)
        return self._done[id(value)]

    def carry_memory(self) -> None:
        """Carry over what optimizers have learned, each for the weights of the parts that it trains."""
        networks = [layer for layer in _keras.sublayers(self._twin)[1:] if isinstance(layer, keras.Model)]
        for old, new in self._optimizers:
            optimized = _keras.variables_optimized_by(old) if old.built else []
            known = {id(self._successors.get(id(each))) for each in optimized}
            groups = (network.variables for network in networks)
            weights = {id(each): each for group in groups if any(id(w) in known for w in group) for each in group}
            carry_memory(old, new, self._model.variables, list(weights.values()), self._successors)

    def _new(self, value: Any) -> Any:
        if isinstance(value, types.MethodType) and id(value.__self__) in self._done:
            return types.MethodType(value.__func__, self._done[id(value.__self__)])
        if isinstance(value, keras.metrics.Metric):
            return own_metric(value)
        if isinstance(value, keras.optimizers.Optimizer):
            self._optimizers.append((value, successor_of(value, self._tempo)))
            return self._optimizers[-1][1]
        if isinstance(value, keras.Variable) and (found := self._successor_of(value)) is not None:
            return found
        if not self._copy:
            return value
        if isinstance(value, keras.layers.Layer):
            return self._copied(value) if value.variables or not value.built else value
        if isinstance(value, keras.Variable):
            shape, dtype = tuple(value.shape), value.dtype
            twin = keras.Variable("zeros", shape, dtype=dtype, trainable=value.trainable, name=value.name)
            _keras.set_value(twin, value)
            self._successors[id(value)] = twin
            return twin
        if isinstance(value, keras.random.SeedGenerator):
            generator = keras.random.SeedGenerator(0, name=value.name)
            _keras.set_value(generator.state, value.state)
            return generator
        return value

    def _weights_of_a_network(self, value: Sequence[Any]) -> list[keras.Variable] | None:
        """The weights of what became of the network whose weights these are, such as all that train; else `None`.

        They are not the successors one by one: some are new, others are gone.

        Raises:
            UnsupportedModelError: if it does not show whether these are all or those that train.
        """
        for layer in self._layers if value and isinstance(value[0], keras.Variable) else []:
            kinds = [kind for kind in _OF_A_NETWORK if [*map(id, getattr(layer, kind))] == [*map(id, value)]]
            found = [getattr(self._done[id(layer)], kind) for kind in kinds]
            if len({tuple(map(id, weights)) for weights in found}) > 1:
                raise UnsupportedModelError(
                    f"{self._whose(layer.name)} apart, and it does not show which of the new ones belong to them, all "
                    f"or those that train. {_APART}"
                )
            if found:
                return list(found[0])
        return None

    def _successor_of(self, weight: keras.Variable) -> keras.Variable | None:
        """What became of the weight of a layer; `None` for one that is no layer's.

        Raises:
            UnsupportedModelError: if nothing did.
        """
        found = self._successors.get(id(weight))
        if found is None and any(weight is each for layer in self._layers for each in layer.variables):
            raise UnsupportedModelError(
                f"{self._whose(weight.path)} apart, and the rewritten network has it no more. {_APART}"
            )
        return found

    def _whose(self, weights: str) -> str:
        return f"Model {self._model.name!r} ({type(self._model).__name__}) holds weights of {weights!r}"

    def _copied(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        twin = clone(layer)
        build_like(layer, twin)
        for ours, theirs in carry_variables(layer, twin):
            _keras.set_value(ours, theirs)
            self._successors.setdefault(id(theirs), ours)
        carry_rest(layer, twin)
        for one, other in zip(_keras.sublayers(layer), _keras.sublayers(twin), strict=False):
            self._done.setdefault(id(one), other)
        return twin


def parts_of(model: keras.Model, graph: Graph) -> list[str]:
    """The paths of the parts of a model, given its graph."""
    rewritten = _rewritten(graph)
    return [path for path, part in _parts(model) if id(part) in rewritten]


def carried_over(model: keras.Model, graph: Graph) -> list[str]:
    """The paths of the layers among the attributes of a model that are carried over as they are, given its graph."""
    rewritten = _rewritten(graph)
    return [path for path, leaf in _leaves(model) if isinstance(leaf, keras.layers.Layer) and id(leaf) not in rewritten]


def _own_ways(model: keras.Model) -> list[str]:
    return [name for name in _keras.own_behaviour(model) if name not in ("call", "__call__")]


def _parts(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """The networks among the attributes of a model, in lists and dicts too, each with its path, once.

    A layer of the user's own is one as well, if it holds layers and calling it is all there is to do with it.
    """
    seen: set[int] = set()
    for path, leaf in _leaves(model):
        is_network = isinstance(leaf, keras.Model) and _keras.is_graph(leaf)
        if id(leaf) not in seen and (is_network or (is_custom(leaf) and _is_but_called(leaf))):
            seen.add(id(leaf))
            yield path, leaf


def _is_but_called(layer: keras.layers.Layer) -> bool:
    own = [kind for kind in type(layer).__mro__ if kind is not object and not _keras.is_keras_own(kind)]
    offered = {name for kind in own for name in vars(kind) if not name.startswith("_")}
    return len(_keras.sublayers(layer)) > 1 and offered <= set(dir(keras.Model))


def _leaves(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """What the attributes of a model hold, in lists and dicts too, each with its path."""
    for name, value in _keras.own_attributes(model).items():
        for keys, leaf in keras.tree.flatten_with_path(value):
            yield "/".join(map(str, (name, *keys))), leaf


def _input_like(value: Value) -> Value:
    spec = value.spec
    return Value(keras.layers.InputLayer(batch_shape=spec.shape, dtype=spec.dtype, sparse=spec.sparse).output)


def _site_of_input(value: Value) -> CallSite:
    layer = _keras.input_layer_of(value.spec)
    return CallSite(layer, layer.name, 0, args=(), kwargs={}, outputs=(value,))


def _mapped(value: Any, renew: Callable[[Any], Any]) -> Any:
    """A collection of the same kind; what Keras tracks becomes a plain one, which it tracks anew."""
    if isinstance(value, dict):
        return {key: renew(each) for key, each in value.items()}
    if hasattr(value, "_fields"):
        return type(value)(*map(renew, value))
    kind = next(kind for kind in (list, tuple, set) if isinstance(value, kind))
    return kind(map(renew, value))
