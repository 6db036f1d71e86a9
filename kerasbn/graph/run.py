"""Run a graph on arrays, call by call, each value kept only until its last use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras

from kerasbn import _keras
from kerasbn.graph.model import CallSite, Graph, Value

Call: TypeAlias = Callable[[CallSite, tuple[Any, ...], dict[str, Any]], Any]
"""What makes a call: gets the call site and its arguments with tensors in the place of values."""


class Run:
    """How far one batch has come: the values that are still needed, and what was called."""

    def __init__(self, values: dict[Value, Any], uses: Counter[Value]) -> None:
        self.values = values
        self.uses = uses
        self.called: set[CallSite] = set()

    @property
    def nbytes(self) -> int:
        """About how much memory its values take."""
        return nbytes_of(list(self.values.values()))


class Runner:
    """Runs the part of a graph that leads to given call sites.

    Memory holds the values that are still needed, not all those of the network.

    Args:
        graph: The graph; graphs inside are run as well.
        is_target: Tells the call sites to arrive at.
    """

    def __init__(self, graph: Graph, is_target: Callable[[CallSite], bool]) -> None:
        self._inputs = keras.tree.flatten(graph.inputs)
        self.sites = _leading_to(is_target, graph.flat.sites)
        self._uses = Counter(value for site in self.sites for value in set(site.inputs))

    def start(self, inputs: Sequence[Any]) -> Run:
        """A run that has the tensors for the graph's inputs, flat, and has called nothing yet."""
        given = zip(self._inputs, inputs, strict=True)
        return Run({value: tensor for value, tensor in given if self._uses[value]}, self._uses.copy())

    def advance(self, run: Run, call: Call, hold: Callable[[CallSite], bool] = lambda site: False) -> None:
        """Make the calls that were not made yet, in their order.

        Args:
            run: The run to go on with.
            call: What makes each call, `call_at_inference` or something that looks on besides.
            hold: The call sites that are not called yet, nor what depends on them. Defaults to none.
        """
        for site in self.sites:
            if site in run.called or hold(site) or any(value not in run.values for value in site.inputs):
                continue
            outputs = self.call(run, site, call)
            run.called.add(site)
            made = zip(site.outputs, keras.tree.flatten(outputs), strict=True)
            run.values.update((value, tensor) for value, tensor in made if self._uses[value])
            for value in set(site.inputs):
                run.uses[value] -= 1
                if not run.uses[value]:
                    del run.values[value]

    def call(self, run: Run, site: CallSite, call: Call) -> Any:
        """Make one call without noting that it was made."""
        return call(site, *filled(site, run.values))


def nbytes_of(tensors: Any) -> int:
    """About how much memory a structure of tensors takes, at 4 bytes a number."""
    shapes = (getattr(tensor, "shape", ()) for tensor in keras.tree.flatten(tensors))
    return sum(4 * math.prod(size or 1 for size in shape) for shape in shapes)


def outputs_of(graph: Graph, inputs: Sequence[Any], call: Call) -> list[Any]:
    """Run a whole graph on tensors for its inputs; its outputs, both flat."""
    values = dict(zip(keras.tree.flatten(graph.inputs), inputs, strict=True))
    for site in graph.flat.sites:
        if not site.is_input:
            outputs = call(site, *filled(site, values))
            values.update(zip(site.outputs, keras.tree.flatten(outputs), strict=True))
    return [values[value] for value in keras.tree.flatten(graph.flat.outputs)]


def filled(site: CallSite, values: Mapping[Value, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with something in the place of each value."""

    def fill(leaf: Any) -> Any:
        return values[leaf] if isinstance(leaf, Value) else leaf

    args, kwargs = keras.tree.map_structure(fill, (site.args, dict(site.kwargs)))
    return args, kwargs


def call_at_inference(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a layer or operation as a model does in `predict`."""
    operation: Any = site.operation
    if _keras.knows_training(operation):
        kwargs["training"] = False
    return operation(*args, **kwargs)


def _leading_to(is_target: Callable[[CallSite], bool], sites: Sequence[CallSite]) -> tuple[CallSite, ...]:
    needed: set[Value] = set()
    found: list[CallSite] = []
    for site in reversed(sites):
        if not site.is_input and (is_target(site) or not needed.isdisjoint(site.outputs)):
            found.append(site)
            needed.update(site.inputs)
    return tuple(reversed(found))
