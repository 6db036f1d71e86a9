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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.compilation.compiled import own_metric
from kerasbn.compilation.optimizer import Tempo, carry_progress, successor_of
from kerasbn.errors import UnsupportedModelError, quoted
from kerasbn.graph.build import Built
from kerasbn.graph.carry import carry_state
from kerasbn.graph.clone import clone
from kerasbn.graph.model import CallSite, Graph, LayerSpec, Value
from kerasbn.graph.read import read_part


def is_assembly(model: Any) -> bool:
    """Whether a model trains, tests or predicts in a way of its own, which a model made anew would lose."""
    if not isinstance(model, keras.Model) or isinstance(model, keras.Sequential) or not _own_ways(model):
        return False
    return _keras.functional_of(model) is None or (
        _keras.is_graph(model) and not _keras.is_constructed_from_tensors(type(model))
    )


def graph_of_parts(model: keras.Model) -> Graph:
    """A graph that calls each part of a model once, on inputs of its own; the model's own one, if it has one.

    Raises:
        UnsupportedModelError: if the model holds no network.
    """
    if _keras.functional_of(model) is not None:
        return read_part(model, "", {})
    inputs: list[Value] = []
    outputs: list[Value] = []
    sites: list[CallSite] = []
    calls: list[CallSite] = []
    known: dict[int, Graph] = {}
    for path, part in _parts(model):
        graph = read_part(part, path, known)
        given = keras.tree.map_structure(_input_like, graph.inputs)
        flat = keras.tree.flatten(given)
        inputs += (site.outputs[0] for site in flat)
        sites += flat
        results = tuple(value.alike() for value in keras.tree.flatten(graph.outputs))
        arguments = keras.tree.map_structure(lambda site: site.outputs[0], given)
        calls.append(CallSite(graph, path, 0, args=(arguments,), kwargs={}, outputs=results))
        outputs += results
    if not calls:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) overrides {', '.join(_own_ways(model))}, and none of its "
            "attributes is a Sequential or Functional model that could be rewritten for it. Hold its network as one: "
            "self.network = keras.Sequential([...])."
        )
    return Graph(model, inputs, outputs, (*sites, *calls))


def assembled(model: keras.Model, built: Built, tempo: Tempo, *, copy: bool) -> Built:
    """The model around the parts that were built from an edit of its graph.

    Args:
        model: The model.
        built: What was built from the edited graph.
        tempo: How optimizers are to differ.
        copy: Whether what is no part is copied as well.
    """
    made = dict(_made(built))
    functional = None if _keras.functional_of(model) is None else built.model
    twin = _keras.bare_model_like(model, functional)
    successors = dict(built.successors)
    renewal = _Renewal(model, twin, made, successors, tempo, copy=copy)
    for name, value in _keras.own_attributes(model).items():
        setattr(twin, name, renewal.of(value))
    for _, part in _parts(model):
        renewal.of(part).name = part.name
    renewal.carry_progress()
    _keras.set_own_trainable(twin, model.trainable)
    if type(model).get_config is not keras.Model.get_config:
        twin.get_config = functools.partial(_config_of_what_it_holds, twin)
    return Built(twin, successors, built.made)


def _made(built: Built) -> Iterator[tuple[int, Any]]:
    """What became of each layer and model of the source, by its `id`."""
    for operation, made in built.made.items():
        source = operation.model if isinstance(operation, Graph) else operation
        source = source.origin if isinstance(source, LayerSpec) else source
        if source is not None:
            yield id(source), made


def _config_of_what_it_holds(model: keras.Model) -> dict[str, Any]:
    """What the class's `get_config` gives, if that brings back what the model holds now; else a file would be lost."""
    config: dict[str, Any] = type(model).get_config(model)
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(config)))
    try:
        with _keras.in_memory_code_allowed():
            found = _held_by(type(model).from_config(stored))
        cause = "" if found == _held_by(model) else "brings back another network, as it was before it was rewritten"
    except Exception as error:
        cause = f"does not bring it back: {quoted(error)}"
    if cause:
        networks = [f"model.{path}" for path in parts_of(model)]
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
        self._twin = twin
        self._done: dict[int, Any] = {id(model): twin, **made}
        self._successors = successors
        self._tempo = tempo
        self._copy = copy
        self._optimizers: list[tuple[Any, Any]] = []

    def of(self, value: Any) -> Any:
        """The new object for one of the source's; the very same one for what holds no state."""
        if isinstance(value, list | tuple | dict | set):
            return _mapped(value, self.of)
        if id(value) not in self._done:
            self._done[id(value)] = self._new(value)
        return self._done[id(value)]

    def carry_progress(self) -> None:
        """Carry over what optimizers have learned, each for the weights of the parts that it trains."""
        for old, new in self._optimizers:
            if old.built:
                known = {id(self._successors.get(id(each))) for each in _keras.variables_optimized_by(old)}
                layers = (layer for layer in _keras.sublayers(self._twin)[1:] if isinstance(layer, keras.Model))
                groups = (layer.trainable_variables for layer in layers)
                weights = {id(each): each for group in groups if any(id(w) in known for w in group) for each in group}
                carry_progress(old, new, list(weights.values()), self._successors)

    def _new(self, value: Any) -> Any:
        if isinstance(value, types.MethodType) and id(value.__self__) in self._done:
            return types.MethodType(value.__func__, self._done[id(value.__self__)])
        if isinstance(value, keras.metrics.Metric):
            return own_metric(value)
        if isinstance(value, keras.optimizers.Optimizer):
            self._optimizers.append((value, successor_of(value, self._tempo)))
            return self._optimizers[-1][1]
        if not self._copy:
            return value
        if isinstance(value, keras.layers.Layer):
            return self._copied(value) if value.variables or not value.built else value
        if isinstance(value, keras.Variable):
            twin = keras.Variable(value, dtype=value.dtype, trainable=value.trainable, name=value.name)
            self._successors[id(value)] = twin
            return twin
        if isinstance(value, keras.random.SeedGenerator):
            generator = keras.random.SeedGenerator(0, name=value.name)
            generator.state.assign(value.state)
            return generator
        return value

    def _copied(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        twin = clone(layer)
        if layer.built and not twin.built:
            twin.build_from_config(layer.get_build_config() or {})
        for ours, theirs in carry_state(layer, twin):
            ours.assign(theirs)
            self._successors.setdefault(id(theirs), ours)
        return twin


def parts_of(model: keras.Model) -> list[str]:
    """The paths of the parts of a model."""
    return [path for path, _ in _parts(model)]


def carried_over(model: keras.Model) -> list[str]:
    """The paths of the layers among the attributes of a model that are carried over as they are."""
    parts = {id(part) for _, part in _parts(model)}
    return [path for path, leaf in _leaves(model) if isinstance(leaf, keras.layers.Layer) and id(leaf) not in parts]


def _own_ways(model: keras.Model) -> list[str]:
    return [name for name in _keras.own_behaviour(model) if name not in ("call", "__call__")]


def _parts(model: keras.Model) -> Iterator[tuple[str, keras.Model]]:
    """The networks among the attributes of a model, in lists and dicts too, each with its path, once."""
    seen: set[int] = set()
    for path, leaf in _leaves(model):
        if isinstance(leaf, keras.Model) and _keras.is_graph(leaf) and id(leaf) not in seen:
            seen.add(id(leaf))
            yield path, leaf


def _leaves(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """What the attributes of a model hold, in lists and dicts too, each with its path."""
    for name, value in _keras.own_attributes(model).items():
        for keys, leaf in keras.tree.flatten_with_path(value):
            yield "/".join(map(str, (name, *keys))), leaf


def _input_like(value: Value) -> CallSite:
    spec = value.spec
    layer = keras.layers.InputLayer(batch_shape=spec.shape, dtype=spec.dtype, sparse=spec.sparse)
    return CallSite(layer, layer.name, 0, args=(), kwargs={}, outputs=(Value(layer.output),))


def _mapped(value: Any, renew: Callable[[Any], Any]) -> Any:
    """A collection of the same kind; what Keras tracks becomes a plain one, which it tracks anew."""
    if isinstance(value, dict):
        return {key: renew(each) for key, each in value.items()}
    if hasattr(value, "_fields"):
        return type(value)(*map(renew, value))
    kind = next(kind for kind in (list, tuple, set) if isinstance(value, kind))
    return kind(map(renew, value))
