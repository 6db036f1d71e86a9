"""Run a graph on arrays, call by call, each value kept only until its last use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import keras

from kerasbn import _keras
from kerasbn.graph.model import CallSite, Graph, Value

Call: TypeAlias = Callable[[CallSite, tuple[Any, ...], dict[str, Any]], Any]
"""What makes a call: gets the call site and its arguments with arrays in the place of values."""


class Runner:
    """Runs the part of a graph that leads to given call sites.

    Memory holds the values that are still needed, not all those of the network.

    Args:
        graph: The graph; graphs inside are run as well.
        targets: The addresses of the call sites to arrive at.
    """

    def __init__(self, graph: Graph, targets: Iterable[str]) -> None:
        self._inputs = keras.tree.flatten(graph.inputs)
        self._sites = _leading_to(frozenset(targets), graph.flat().sites)
        last_use = {value: site for site in self._sites for value in (*site.outputs, *site.inputs)}
        self._done_after: dict[CallSite, list[Value]] = {site: [] for site in self._sites}
        for value, site in last_use.items():
            self._done_after[site].append(value)

    def run(self, inputs: Sequence[Any], call: Call) -> None:
        """Make the calls in their order.

        Args:
            inputs: The tensors for the graph's inputs, flat.
            call: What makes each call, `call_at_inference` or something that looks on besides.
        """
        values = dict(zip(self._inputs, inputs, strict=True))

        def filled(leaf: Any) -> Any:
            return values[leaf] if isinstance(leaf, Value) else leaf

        for site in self._sites:
            args = keras.tree.map_structure(filled, site.args)
            outputs = call(site, args, keras.tree.map_structure(filled, dict(site.kwargs)))
            values.update(zip(site.outputs, keras.tree.flatten(outputs), strict=True))
            for value in self._done_after[site]:
                values.pop(value, None)


def call_at_inference(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a layer or operation as a model does in `predict`."""
    operation: Any = site.operation
    if _keras.knows_training(operation):
        kwargs["training"] = False
    return operation(*args, **kwargs)


def _leading_to(targets: frozenset[str], sites: Sequence[CallSite]) -> tuple[CallSite, ...]:
    needed: set[Value] = set()
    found: list[CallSite] = []
    for site in reversed(sites):
        if site.address in targets or not needed.isdisjoint(site.outputs):
            found.append(site)
            needed.update(site.inputs)
    return tuple(reversed(found))
