"""Custom layers as graphs of what they do, by calling them on symbolic inputs.

What a layer of the user's own does between its layers in Python is done once, while it is recorded.
So the record stands for the layer only where it loses nothing (weights, losses, metrics, masks) and
computes the same: at inference and in training, at two sizes of every open axis.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import line_of, quoted
from kerasbn.graph.model import CallSite, Graph, Operation, Value
from kerasbn.graph.read import is_custom, read_call
from kerasbn.graph.run import filled, outputs_of
from kerasbn.reasons import Reason, Refusal
from kerasbn.source.faithful import Outcome, difference, is_about_loss, outcome

_SIZES = (16, 24)
"""The sizes to try an open axis with; the batch is tried with the first ones of these."""
_BATCHES = (2, 3)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A graph with custom layers opened.

    Attributes:
        graph: The graph.
        kept: The custom layers that were to be opened and are kept whole, with the reason.
        paths: The paths of the custom layers that were opened.
    """

    graph: Graph
    kept: Mapping[keras.layers.Layer, Refusal]
    paths: tuple[str, ...]


def opened(graph: Graph, holds: Callable[[keras.layers.Layer], bool], *, copy: bool) -> Opened:
    """Open the custom layers of a graph, those inside others as well.

    Args:
        graph: The graph.
        holds: Tells the layers for the sake of which those around them are opened.
        copy: Whether layers are going to be copied, so that they can get other names.
    """
    kept: dict[keras.layers.Layer, Refusal] = {}
    while (layer := _next_to_open(graph, holds, kept)) is not None:
        known = {id(each.model): each for each in graph.calls if isinstance(each, Graph)}
        try:
            inner = _Opening(layer, graph.calls[layer], known).graph()
            if not copy and any(site.name != site.operation.name for site in inner.sites):
                raise Refusal(Reason.UNTRACEABLE, "holds several layers of one name, which copy=True would tell apart")
        except Refusal as refusal:
            kept[layer] = refusal.with_traceback(None)
        else:
            graph = _with_graph(graph, layer, inner, {})
    paths = (sites[0].path for each, sites in graph.calls.items() if isinstance(each, Graph) and is_custom(each.model))
    return Opened(graph, kept, tuple(paths))


def _next_to_open(
    graph: Graph, holds: Callable[[keras.layers.Layer], bool], kept: Mapping[keras.layers.Layer, Refusal]
) -> keras.layers.Layer | None:
    for operation in graph.calls:
        if is_custom(operation) and operation not in kept and any(map(holds, _keras.sublayers(operation)[1:])):
            return operation
    return None


def _with_graph(graph: Graph, layer: keras.layers.Layer, inner: Graph, done: dict[Graph, Graph]) -> Graph:
    """A graph with a layer's own graph in its place."""
    if graph not in done:
        sites = []
        for site in graph.sites:
            if site.operation is layer:
                site = _call_of_graph(site, inner)
            elif isinstance(site.operation, Graph):
                operation = _with_graph(site.operation, layer, inner, done)
                site = site if operation is site.operation else dataclasses.replace(site, operation=operation)
            sites.append(site)
        changed = [new for new, old in zip(sites, graph.sites, strict=True) if new is not old]
        edited = graph.edited or any(isinstance(site.operation, Graph) and site.operation.edited for site in changed)
        done[graph] = dataclasses.replace(graph, sites=tuple(sites), edited=edited) if changed else graph
    return done[graph]


def _call_of_graph(site: CallSite, inner: Graph) -> CallSite:
    """A call of the layer as one of its graph: with the inputs, and whether it is told to train."""
    training = {name: value for name, value in site.kwargs.items() if name == "training" and value is not None}
    inputs = site.args[0] if _takes_one_structure(site) else list(site.inputs)
    return dataclasses.replace(site, operation=inner, args=(inputs,), kwargs=training)


def _takes_one_structure(site: CallSite) -> bool:
    """Whether all values that go into a call are in its first argument, and nothing else is."""
    leaves = keras.tree.flatten(site.args[0]) if site.args else []
    return bool(leaves) and len(leaves) == len(site.inputs) and all(isinstance(leaf, Value) for leaf in leaves)


class _Opening:
    """One custom layer, on the way to its graph."""

    def __init__(self, layer: keras.layers.Layer, sites: Sequence[CallSite], known: Mapping[int, Graph]) -> None:
        self._layer = layer
        self._sites = sites
        self._known = known
        self._parameters = inspect.signature(layer.call).parameters

    def graph(self) -> Graph:
        """The graph of what the layer does at all of its call sites.

        Raises:
            Refusal: if there is none that could stand for it.
        """
        self._check_nothing_is_lost()
        self._check_calls_are_alike()
        found = self._recorded()
        if "training" in self._parameters and self._recorded(training=True).steps != found.steps:
            raise Refusal(Reason.TRAINING_BRANCH, "does something else in training, by an `if training:` in its call")
        self._check_computes_the_same(found)
        as_before = all(_takes_one_structure(site) and not site.kwargs.keys() - {"training"} for site in self._sites)
        return dataclasses.replace(_with_distinct_paths(found), edited=not as_before)

    def _check_nothing_is_lost(self) -> None:
        layer = self._layer
        if own := _keras.own_variables(layer):
            raise Refusal(Reason.OWN_WEIGHTS, f"has the weight {own[0].name!r} of its own")
        if layer.activity_regularizer is not None:
            raise Refusal(Reason.OWN_LOSSES, "has an activity regularizer")
        if layer.metrics:
            raise Refusal(Reason.OWN_LOSSES, f"has the metric {layer.metrics[0].name!r}")
        if not _keras.is_keras_own(_owner(type(layer), "compute_mask")):
            raise Refusal(Reason.OWN_MASK, "overrides compute_mask")

    def _check_calls_are_alike(self) -> None:
        first, *others = [_arguments_besides_values(site) for site in self._sites]
        if any(keras.tree.flatten(each) != keras.tree.flatten(first) for each in others):
            raise Refusal(Reason.UNTRACEABLE, "is called with other arguments elsewhere")
        shapes = [[len(value.shape) for value in site.inputs] for site in self._sites]
        if any(each != shapes[0] for each in shapes):
            raise Refusal(Reason.UNTRACEABLE, "is called on inputs of other ranks elsewhere")
        if any(_told_by_value(site) for site in self._sites):
            raise Refusal(Reason.UNTRACEABLE, "is told by a tensor whether to train")

    def _recorded(self, **arguments: Any) -> Graph:
        """What the layer's call does on symbolic inputs."""
        site = self._sites[0]
        inputs = [self._input(index) for index in range(len(site.inputs))]
        given = dict(zip(site.inputs, inputs, strict=True))
        args, kwargs = filled(site, given)
        kwargs.pop("training", None)
        with _keras.forgotten_calls(_keras.sublayers(self._layer)):
            try:
                outputs = self._layer.call(*args, **kwargs, **arguments)
            except Exception as error:
                if is_about_loss(error):
                    raise Refusal(Reason.OWN_LOSSES, f"adds a loss in its call, at {line_of(error)}") from None
                raise Refusal(
                    Reason.UNTRACEABLE, f"cannot be called on symbolic inputs, at {line_of(error)}: {quoted(error)}"
                ) from None
            if not all(isinstance(output, keras.KerasTensor) for output in keras.tree.flatten(outputs)):
                raise Refusal(Reason.UNTRACEABLE, "returns something else than tensors from its call")
            structure = args[0] if _takes_one_structure(site) else inputs
            return read_call(self._layer, structure, outputs, site.path, self._known)

    def _input(self, index: int) -> keras.KerasTensor:
        """A symbolic input that all call sites fit, with axes open along which they differ."""
        shapes = [site.inputs[index].shape for site in self._sites]
        shape = tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))
        spec = self._sites[0].inputs[index].spec
        floating = keras.backend.is_float_dtype(spec.dtype) and self._layer.autocast
        dtype = self._layer.compute_dtype if floating else spec.dtype
        taken = {layer.name for layer in _keras.sublayers(self._layer)}
        name = next(name for name in _input_names(index) if name not in taken)
        return keras.layers.InputLayer(batch_shape=shape, dtype=dtype, name=name).output

    def _check_computes_the_same(self, found: Graph) -> None:
        """Run the layer and its graph on the same inputs, with the same random state."""
        site = self._sites[0]
        masked = any(_keras.mask_of(value.spec) is not None for each in self._sites for value in each.inputs)
        for size, training, with_masks in itertools.product(range(2), (False, True), (False, True)[: 1 + masked]):
            arrays = [_array(value.spec, size, with_masks) for value in keras.tree.flatten(found.inputs)]
            expected = self._outcome(functools.partial(self._call, site, arrays, training))
            got = self._outcome(functools.partial(_run, found, arrays, training))
            if (reason := difference(expected, got)) is not None:
                when = "in training" if training else "at inference"
                raise Refusal(reason, f"computes something else once it is recorded, {when}")

    def _call(self, site: CallSite, arrays: Sequence[Any], training: bool) -> Any:
        args, kwargs = filled(site, dict(zip(site.inputs, arrays, strict=True)))
        return self._layer(*args, **{**kwargs, "training": training})

    def _outcome(self, call: Callable[[], Any]) -> Outcome:
        try:
            return outcome(call, self._layer.variables)
        except Exception as error:
            raise Refusal(Reason.UNTRACEABLE, f"cannot be run to compare: {quoted(error)}") from None


def _owner(kind: type, method: str) -> type:
    return next(each for each in kind.__mro__ if method in each.__dict__)


def _arguments_besides_values(site: CallSite) -> Any:
    kwargs = {name: value for name, value in site.kwargs.items() if name != "training"}
    return keras.tree.map_structure(lambda leaf: "value" if isinstance(leaf, Value) else leaf, (site.args, kwargs))


def _told_by_value(site: CallSite) -> bool:
    return isinstance(site.kwargs.get("training"), Value)


def _input_names(index: int) -> Iterator[str]:
    yield "inputs" if index == 0 else f"inputs_{index}"
    number = 0
    while True:
        number += 1
        yield f"inputs_{index}_{number}"


def _with_distinct_paths(graph: Graph) -> Graph:
    """A graph in which no two operations have one path: a further one of a name gets a number."""
    owners = {site.path: site.operation for site in graph.sites if site.is_input}
    paths: dict[Operation, str] = {}
    for site in graph.sites:
        path, number = site.path, 0
        while site.operation not in paths and owners.setdefault(path, site.operation) is not site.operation:
            number += 1
            path = f"{site.path}_{number}"
        paths.setdefault(site.operation, path)
    return dataclasses.replace(
        graph, sites=tuple(dataclasses.replace(site, path=paths[site.operation]) for site in graph.sites)
    )


def _array(spec: keras.KerasTensor, number: int, masked: bool) -> Any:
    """Random values for a symbolic input, of the first or second size of every open axis, with a mask if asked."""
    generator = np.random.default_rng(number)
    batch, *sizes = spec.shape
    shape = (batch or _BATCHES[number], *(size or _SIZES[number] for size in sizes))
    if keras.backend.is_float_dtype(spec.dtype):
        array = keras.ops.cast(generator.normal(size=shape).astype("float32"), spec.dtype)
    else:
        array = keras.ops.cast(generator.integers(0, 2, size=shape), spec.dtype)
    if masked and len(shape) > 2:
        _keras.set_mask(array, keras.ops.convert_to_tensor(generator.integers(0, 2, size=shape[:2]) > 0))
    return array


def _run(graph: Graph, arrays: Sequence[Any], training: bool) -> Any:
    """What the graph would do as a model: what that is told goes for all inside it."""

    def call(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation: Any = site.operation
        if isinstance(operation, keras.layers.Layer):  # whether its own call takes it or not
            kwargs["training"] = training
        return operation(*args, **kwargs)

    return outputs_of(graph, arrays, call)
