"""Percentiles of what reaches the layers of a model, on given data.

Figure 1 of Ioffe & Szegedy (2015) follows the {15, 50, 85}th percentiles of what one sigmoid gets in
the course of training. Without batch normalization they drift; with it they hardly do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn.arrays import Array, array_of
from kerasbn.catalog.roles import Role, role_of
from kerasbn.errors import OptionError
from kerasbn.graph.model import CallSite, Graph, matches
from kerasbn.graph.read import read_to_run
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.statistics.data import batches
from kerasbn.statistics.running import running

_STATISTICS = ("moving_mean", "moving_variance", "gamma", "beta")


class Watch:
    """Some call sites of a model, to be looked at.

    Args:
        model: A Sequential or Functional model.
        layers: A glob over layer paths, or several. `None`: activations and batch normalizations.
        channel: The channel to look at. `None`: all channels pooled.

    Raises:
        OptionError: for a glob that matches no layer.
        UnsupportedModelError: for a model that is neither Sequential nor Functional.
    """

    def __init__(self, model: keras.Model, layers: str | Iterable[str] | None, channel: int | None) -> None:
        self._graph = read_to_run(model)
        self._sites = _chosen(self._graph, layers)
        self._channel = channel

    def inputs(self, data: Any) -> Iterator[tuple[str, Array]]:
        """What each of the call sites gets, by its address. One in a model that is called again has it all."""
        addresses = {site.address for site in self._sites}
        seen: dict[str, list[Array]] = defaultdict(list)

        def call(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if site.address in addresses:
                values = array_of(keras.tree.flatten((args, kwargs))[0])
                seen[site.address].append(_of_channel(site, values, self._channel).ravel())
            return call_at_inference(site, args, kwargs)

        runner = Runner(self._graph, lambda site: site.address in addresses)
        (inputs,) = batches(self._graph.model, iter([(data,)]), "Looking at the layers")
        with running(self._graph.model), keras.StatelessScope():  # no state of a recurrent layer is written
            runner.advance(runner.start(inputs), call)
        return ((address, np.concatenate(parts)) for address, parts in seen.items())

    def statistics(self) -> Iterator[tuple[str, Array]]:
        """Moving averages and weights of the batch normalizations among them, by name and path."""
        channel = self._channel
        for site in self._sites:
            if role_of(site.operation) is Role.BATCH_NORMALIZATION:
                for name in _STATISTICS:
                    if (variable := getattr(site.operation, name, None)) is not None:
                        values = array_of(variable)
                        yield f"{name}/{site.path}", values if channel is None else values[channel : channel + 1]


def input_percentiles(
    model: keras.Model,
    data: Any,
    layers: str | Iterable[str] | None = None,
    percentiles: Sequence[float] = (15, 50, 85),
    channel: int | None = None,
) -> Mapping[str, Array]:
    """Percentiles of what layers get, in inference mode.

    Args:
        model: A Sequential or Functional model.
        data: Arrays in the structure of the model's inputs.
        layers: Which layers, as for `InputPercentiles`.
        percentiles: Which percentiles, in [0, 100]. Defaults to `(15, 50, 85)`.
        channel: The channel to look at, as for `InputPercentiles`.

    Returns:
        The percentiles of each call site, by its address, such as `"conv2_activation#0"`.

    Raises:
        OptionError: for a glob that matches no layer, percentiles outside of [0, 100], and data
            that does not fit the model.
        UnsupportedModelError: for a model that is neither Sequential nor Functional.
    """
    check_percentiles(percentiles)
    inputs = Watch(model, layers, channel).inputs(data)
    return {address: np.percentile(values, percentiles) for address, values in inputs}


def check_percentiles(percentiles: Sequence[float]) -> None:
    """Refuse what are no percentiles."""
    if not percentiles or not all(0 <= percentile <= 100 for percentile in percentiles):
        raise OptionError(
            f"Option percentiles is {percentiles!r}; it must be numbers in [0, 100], such as (15, 50, 85)."
        )


def _chosen(graph: Graph, layers: str | Iterable[str] | None) -> tuple[CallSite, ...]:
    """The call sites to look at."""
    sites = tuple(site for site in graph.walk() if not isinstance(site.operation, Graph) and site.inputs)
    if layers is None:
        watched = {Role.ACTIVATION, Role.BATCH_NORMALIZATION}
        return tuple(site for site in sites if role_of(site.operation) in watched)
    globs = (layers,) if isinstance(layers, str) else tuple(layers)
    for glob in globs:
        if not any(matches(site.path, glob) for site in sites):
            raise OptionError(
                f"Option layers holds {glob!r}, which matches no layer of model {graph.name!r}. Layers are matched by "
                f"their path, such as {sites[0].path if sites else 'conv1'!r}."
            )
    return tuple(site for site in sites if any(matches(site.path, glob) for glob in globs))


def _of_channel(site: CallSite, values: Array, channel: int | None) -> Array:
    if channel is None:
        return values
    axis = getattr(site.operation, "axis", -1) if role_of(site.operation) is Role.BATCH_NORMALIZATION else -1
    if not -values.shape[axis] <= channel < values.shape[axis]:
        raise OptionError(
            f"Option channel is {channel}, but {site.address} has {values.shape[axis]} channels. "
            "Choose layers that have it, or leave it out to pool all channels."
        )
    return np.take(values, [channel], axis)
