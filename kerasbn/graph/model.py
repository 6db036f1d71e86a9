"""The graph: call sites and the values that flow between them.

A Keras model is read once into this form. It is immutable: an edit gives a new graph that shares
what it did not change. A layer that is called twice is two call sites with one operation; an
operation such as `x + y` is a call site like any other.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias

import keras


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


@dataclasses.dataclass(frozen=True, eq=False)
class LayerSpec:
    """A layer to be made when the graph is built. Used at several call sites, it is one layer.

    Attributes:
        cls: The layer's class.
        config: Arguments of the constructor; live objects (functions, regularizers) are welcome.
        origin: The layer that this one replaces. Its weights carry over by name, also the
            progress of the optimizer on them.
        values: Weights that start from something else, by name: what gives the value.
    """

    cls: type[keras.layers.Layer]
    config: Mapping[str, Any]
    origin: keras.layers.Layer | None = None
    values: Mapping[str, Callable[[], Any]] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name that the layer will have."""
        return str(self.config["name"])

    def with_config(self, **changes: Any) -> LayerSpec:
        """The same layer with some arguments of its constructor changed."""
        return dataclasses.replace(self, config={**self.config, **changes})


Operation: TypeAlias = "keras.Operation | LayerSpec"
"""What is called at a call site: an operation or layer of the source model, or a layer to be."""


@dataclasses.dataclass(frozen=True, eq=False)
class CallSite:
    """One call of one operation.

    Attributes:
        operation: What is called.
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
        """The site as the user reads it, `"encoder/conv2#0"`."""
        return f"{self.path}#{self.call}"

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        """The values among the arguments, flat."""
        return tuple(leaf for leaf in keras.tree.flatten((self.args, dict(self.kwargs))) if isinstance(leaf, Value))

    @property
    def operation_type(self) -> type:
        """The class of the layer or operation, of one to be as well."""
        return self.operation.cls if isinstance(self.operation, LayerSpec) else type(self.operation)

    def with_arguments(self, substitute: Callable[[Any], Any]) -> CallSite:
        """The same call with `substitute` applied to each leaf of its arguments."""
        return dataclasses.replace(
            self,
            args=keras.tree.map_structure(substitute, self.args),
            kwargs=keras.tree.map_structure(substitute, dict(self.kwargs)),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A model as call sites in the order in which they run.

    Attributes:
        model: The Keras model that was read.
        inputs: The structure of the model's inputs, of `Value`s.
        outputs: The structure of the model's outputs, of `Value`s.
        sites: The call sites, each after those that yield its inputs.
    """

    model: keras.Model
    inputs: Any
    outputs: Any
    sites: tuple[CallSite, ...]

    @cached_property
    def producers(self) -> Mapping[Value, CallSite]:
        """The call site that yields each value; the graph's inputs have none."""
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
        """Each call site by its address."""
        return {site.address: site for site in self.sites}

    @cached_property
    def calls(self) -> Mapping[Operation, tuple[CallSite, ...]]:
        """The call sites of each operation, in the order of its calls."""
        found: dict[Operation, list[CallSite]] = defaultdict(list)
        for site in self.sites:
            found[site.operation].append(site)
        return {operation: tuple(sorted(sites, key=lambda site: site.call)) for operation, sites in found.items()}

    def layers(self) -> Iterator[tuple[str, keras.layers.Layer]]:
        """Path and layer, once for each layer of the source model that is called."""
        for operation, sites in self.calls.items():
            if isinstance(operation, keras.layers.Layer):
                yield sites[0].path, operation
