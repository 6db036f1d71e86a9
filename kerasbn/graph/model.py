"""The graph: call sites and the values that flow between them.

A Keras model is read once into this form. It is immutable: an edit gives a new graph that shares
what it did not change. A layer that is called twice is two call sites with one operation; an
operation such as `x + y` is a call site like any other, and so is an input, which is called with
nothing; a model inside a model is a graph that is called, and if it is called twice it is still one
graph.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias

import keras

from kerasbn import _keras


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A tensor of the graph, named by its identity.

    Attributes:
        spec: The symbolic tensor that gives shape, dtype and kind (dense, sparse, ragged).
    """

    spec: keras.KerasTensor

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape, `None` where it is open."""
        return tuple(self.spec.shape)

    def alike(self) -> Value:
        """A new value of the same spec."""
        return Value(self.spec)


Place: TypeAlias = "tuple[int, str]"
"""Where a layer holds a weight: which of all the layers in it does, from itself as 0, and the name there."""

Values: TypeAlias = "dict[str | Place, Callable[[], Any]]"
"""What gives the values that weights start from: all of a name, or the one at a place."""


@dataclasses.dataclass(frozen=True, eq=False)
class LayerSpec:
    """A layer to be made when the graph is built. Used at several call sites, it is one layer.

    Attributes:
        cls: The layer's class.
        config: Arguments of the constructor; live objects (functions, regularizers) are welcome,
            and specs of layers that this one wraps.
        origin: The layer that this one replaces. Its weights carry over by name, also the
            progress of the optimizer on them.
        values: Weights that start from something else, with what gives the value.
        asked_for: The spec that this one was before another edit changed its arguments, if one did.
    """

    cls: type[keras.layers.Layer]
    config: Mapping[str, Any]
    origin: keras.layers.Layer | None = None
    values: Values = dataclasses.field(default_factory=dict)
    asked_for: LayerSpec | None = dataclasses.field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name that the layer will have."""
        return str(self.config["name"])

    def named(self, name: str) -> LayerSpec:
        """The same layer under another name."""
        return dataclasses.replace(self, config={**self.config, "name": name})

    def with_config(self, **changes: Any) -> LayerSpec:
        """The same layer with some arguments of its constructor changed; those that it lacks, in what it wraps."""
        if wrapped := self.wrapped:
            own = {argument: value for argument, value in changes.items() if argument in self.config}
            inner = {argument: value for argument, value in changes.items() if argument not in own}
            changes = {**own, **{argument: spec.with_config(**inner) for argument, spec in wrapped.items()}}
        return dataclasses.replace(self, config={**self.config, **changes}, asked_for=self.asked_for or self)

    @property
    def wrapped(self) -> Mapping[str, LayerSpec]:
        """The layers that this one wraps, by argument."""
        return {argument: value for argument, value in self.config.items() if isinstance(value, LayerSpec)}


Operation: TypeAlias = "keras.Operation | LayerSpec | Graph"
"""What is called at a call site: an operation or layer of the source, a layer to be, or a model inside."""


def core_of(operation: Any) -> Any:
    """The layer that `TimeDistributed` applies to every step; anything else is its own core."""
    if isinstance(operation, Graph) or type_of(operation) is not keras.layers.TimeDistributed:
        return operation
    return core_of(operation.config["layer"] if isinstance(operation, LayerSpec) else operation.layer)


def step_axes(operation: Any) -> int:
    """How many axes of steps `TimeDistributed` goes along on the way to the core."""
    return 0 if operation is core_of(operation) else 1 + step_axes(operation.layer)


def type_of(operation: Operation) -> type:
    """The class of a layer or operation, of one to be as well, of the model for a graph."""
    match operation:
        case LayerSpec(cls=cls):
            return cls
        case Graph(model=model):
            return type(model)
    return type(operation)


def matches(path: str, glob: str) -> bool:
    """Whether a layer's path is this very one, or one that a glob is for: a name may hold `[`, as in `"conv[1]"`."""
    return path == glob or fnmatch.fnmatchcase(path, glob)


@dataclasses.dataclass(frozen=True, eq=False)
class CallSite:
    """One call of one operation.

    Attributes:
        operation: What is called. For an input of a model, its `InputLayer`.
        path: The operation's path through nested models, `"encoder/conv2"`.
        call: Which of the operation's calls this is, from 0.
        args: Positional arguments, a structure with a `Value` where a tensor goes.
        kwargs: Keyword arguments, likewise.
        outputs: The values that the call yields, flat.
    """

    operation: Operation
    path: str
    call: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Value, ...]

    @property
    def address(self) -> str:
        """The site as the user reads it, `"encoder/conv2#0"`, an input without a number."""
        return self.path if self.is_input else f"{self.path}#{self.call}"

    @property
    def name(self) -> str:
        """The name of the operation in its model."""
        return self.path.rpartition("/")[2]

    @property
    def is_input(self) -> bool:
        """Whether this is an input of its model, so that nothing is called."""
        return isinstance(self.operation, keras.layers.InputLayer)

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        """The values among the arguments, flat."""
        return tuple(leaf for leaf in keras.tree.flatten((self.args, dict(self.kwargs))) if isinstance(leaf, Value))

    def with_arguments(self, replacements: Mapping[Value, Value]) -> CallSite:
        """The same call with other values among its arguments."""
        return self._with_inputs(replacements.get(value, value) for value in self.inputs)

    def with_input(self, index: int, value: Value) -> CallSite:
        """The same call with another value as one of its inputs."""
        return self._with_inputs((*self.inputs[:index], value, *self.inputs[index + 1 :]))

    def _with_inputs(self, inputs: Iterable[Value]) -> CallSite:
        given = iter(inputs)

        def substitute(leaf: Any) -> Any:
            return next(given) if isinstance(leaf, Value) else leaf

        # In the order of `inputs`, which flattens both together.
        args, kwargs = keras.tree.map_structure(substitute, (self.args, dict(self.kwargs)))
        return dataclasses.replace(self, args=args, kwargs=kwargs)


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A model as call sites in the order in which they run.

    Attributes:
        model: The Keras model that was read, or the custom layer of which this is what it does.
        inputs: The structure of the model's inputs, of `Value`s.
        outputs: The structure of the model's outputs, of `Value`s.
        sites: The call sites, each after those that yield its inputs; first those of the inputs.
        edited: Whether it is no longer as the model is.
    """

    model: keras.layers.Layer
    inputs: Any
    outputs: Any
    sites: tuple[CallSite, ...]
    edited: bool = False

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self.model.name)

    def walk(self) -> Iterator[CallSite]:
        """All call sites, with those of a graph inside right before its first call."""
        seen: set[Graph] = set()

        def visit(graph: Graph) -> Iterator[CallSite]:
            for site in graph.sites:
                if isinstance(site.operation, Graph) and site.operation not in seen:
                    seen.add(site.operation)
                    yield from visit(site.operation)
                yield site

        return visit(self)

    @cached_property
    def producers(self) -> Mapping[Value, CallSite]:
        """The call site that yields each value."""
        return {value: site for site in self.sites for value in site.outputs}

    @cached_property
    def consumers(self) -> Mapping[Value, tuple[CallSite, ...]]:
        """The call sites that use each value."""
        found: dict[Value, list[CallSite]] = defaultdict(list)
        for site in self.sites:
            for value in dict.fromkeys(site.inputs):
                found[value].append(site)
        return defaultdict(tuple, {value: tuple(sites) for value, sites in found.items()})

    @cached_property
    def output_values(self) -> frozenset[Value]:
        """The values that are outputs of the model."""
        return frozenset(keras.tree.flatten(self.outputs))

    @cached_property
    def by_address(self) -> Mapping[str, CallSite]:
        """Each call site, of graphs inside as well, by its address."""
        return {site.address: site for site in self.walk()}

    @cached_property
    def calls(self) -> Mapping[Operation, tuple[CallSite, ...]]:
        """The call sites of each operation, in graphs inside as well."""
        found: dict[Operation, list[CallSite]] = defaultdict(list)
        for site in self.walk():
            found[site.operation].append(site)
        return {operation: tuple(sites) for operation, sites in found.items()}

    @property
    def steps(self) -> list[Any]:
        """What is called, in the order of the calls: layers and models themselves, of operations the class."""
        called = (site.operation for site in self.sites if not site.is_input)
        whole = (each.model if isinstance(each, Graph) else each for each in called)
        return [each if isinstance(each, keras.layers.Layer) else type(each) for each in whole]

    def layers(self) -> Iterator[tuple[str, keras.layers.Layer]]:
        """Path and layer, once for each layer of the source model that is called, in graphs inside as well."""
        seen: set[keras.layers.Layer] = set()
        for site in self.walk():
            if isinstance(site.operation, keras.layers.Layer) and site.operation not in seen:
                seen.add(site.operation)
                yield site.path, site.operation

    @cached_property
    def flat(self) -> Graph:
        """The graph with the graphs inside written out, once for each call of theirs.

        It is for looking at, not for building: a call site of a graph that is called twice appears
        twice, under one address, and a mask that a graph is called with is a call of its own.
        """
        stands_for: dict[Value, Value] = {}
        sites = tuple(_written_out(self, stands_for, inside=False))
        outputs = keras.tree.map_structure(lambda value: stands_for.get(value, value), self.outputs)
        return dataclasses.replace(self, sites=sites, outputs=outputs)


def _written_out(graph: Graph, stands_for: dict[Value, Value], *, inside: bool) -> Iterator[CallSite]:
    """The call sites of a graph, flat.

    Args:
        graph: The graph.
        stands_for: What to put in the place of the graph's values. It is filled up on the way.
        inside: Whether this is one call of a graph inside another, with values of its own.
    """
    for site in graph.sites:
        if inside and site.is_input:
            continue
        if any(value in stands_for for value in site.inputs):
            site = site.with_arguments(stands_for)
        if isinstance(site.operation, Graph):
            inner = site.operation
            given = _passed(site, inner)
            for index, mask in enumerate(_masks_passed(site)):
                if mask is not None and given[index] is not None:
                    masked = given[index].alike()
                    yield CallSite(Masked(), site.path, site.call, (given[index], mask), {}, outputs=(masked,))
                    given[index] = masked
            passed = dict(zip(keras.tree.flatten(inner.inputs), given, strict=False))
            yield from _written_out(inner, passed, inside=True)
            for outer, value in zip(site.outputs, keras.tree.flatten(inner.outputs), strict=True):
                stands_for[outer] = passed.get(value, value)
        elif inside:
            outputs = tuple(value.alike() for value in site.outputs)
            stands_for.update(zip(site.outputs, outputs, strict=True))
            yield dataclasses.replace(site, outputs=outputs)
        else:
            yield site


def _passed(site: CallSite, graph: Graph) -> list[Any]:
    """The values with which a graph is called, in the order of its inputs."""
    inputs = site.args[0] if site.args else site.kwargs["inputs"]
    if isinstance(inputs, dict) and not isinstance(graph.inputs, dict):
        return [inputs[value.spec.name] for value in keras.tree.flatten(graph.inputs)]
    return list(keras.tree.flatten(inputs))


def _masks_passed(site: CallSite) -> list[Any]:
    """The masks that a graph is called with, in the order of what it is called on; `None` where there is none."""
    masks = site.kwargs.get("mask")
    return [] if masks is None else list(keras.tree.flatten(masks))


class Masked(keras.Operation):  # type: ignore[misc]
    """Has a mask travel with a value from here on, as a model does with the `mask` that it is called with."""

    def call(self, inputs: Any, mask: Any) -> Any:
        """The tensor itself; the model around sees the mask too."""
        _keras.set_mask(inputs, mask)
        return inputs
