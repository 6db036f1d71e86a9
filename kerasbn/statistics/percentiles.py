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

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.catalog.norms import Norm, norms_at
from kerasbn.catalog.roles import Role, role_of
from kerasbn.errors import OptionError, by_path
from kerasbn.graph.model import CallSite, Graph, matches
from kerasbn.graph.read import read_to_run
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.serializable._kernels.arrangement import spread
from kerasbn.statistics.data import batches
from kerasbn.statistics.moments import hidden
from kerasbn.statistics.running import running

_STATISTICS = ("moving_mean", "moving_variance", "gamma", "beta")


class Watch:
    """Some layers of a model, to be looked at.

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
        self._watched = {each.address: each for each in _chosen(self._graph, layers)}
        self._channel = channel

    def inputs(self, data: Any) -> Iterator[tuple[str, Array]]:
        """What each of them gets, by its address. One in a model that is called again has it all."""
        seen: list[tuple[str, Any, Any]] = []

        def call(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if isinstance(self._watched.get(site.address), CallSite):
                seen.append((site.address, keras.tree.flatten((args, kwargs))[0], None))
            addresses = {norm.layer: norm.address for norm in norms_at(site) if norm.address in self._watched}

            def note(norm: Any, inputs: Any, training: Any = None, mask: Any = None) -> None:
                seen.append((addresses[norm], inputs, mask))

            with _keras.observed(addresses, note):
                return call_at_inference(site, args, kwargs)

        runner = Runner(self._graph, self._is_watched)
        (inputs,) = batches(self._graph.model, iter([(data,)]), "Looking at the layers")
        with running(self._graph.model), _keras.aside(self._graph.model):  # no state of a recurrent layer is written
            runner.advance(runner.start(inputs), call)
        values: dict[str, list[Array]] = defaultdict(list)
        for address, tensor, mask in seen:
            values[address].append(self._counting(address, tensor, mask))
        return ((address, np.concatenate(parts)) for address, parts in values.items())

    def statistics(self) -> Iterator[tuple[str, Array]]:
        """Moving averages and weights of the batch normalizations among them, by name and path."""
        channel = self._channel
        for each in self._watched.values():
            if isinstance(each, Norm):
                for name in _STATISTICS:
                    if (variable := getattr(each.layer, name, None)) is not None:
                        values = array_of(variable)
                        yield f"{name}/{each.path}", values if channel is None else values[channel : channel + 1]

    def _is_watched(self, site: CallSite) -> bool:
        return site.address in self._watched or any(norm.address in self._watched for norm in norms_at(site))

    def _counting(self, address: str, tensor: Any, mask: Any) -> Array:
        """The values of the channel, those that a mask leaves out aside."""
        watched = self._watched[address]
        norm = watched.layer if isinstance(watched, Norm) else None
        if norm is not None and _keras.is_traced(tensor):
            raise hidden(norm)
        values, axis = array_of(tensor), -1 if norm is None else norm.axis
        counts = np.broadcast_to(True if mask is None else spread(mask, tensor, axis % values.ndim), values.shape)
        if self._channel is not None:
            if not -values.shape[axis] <= self._channel < values.shape[axis]:
                raise OptionError(
                    f"Option channel is {self._channel}, but {address} has {values.shape[axis]} channels. "
                    "Choose layers that have it, or leave it out to pool all channels."
                )
            values, counts = (np.take(each, [self._channel], axis) for each in (values, counts))
        found: Array = values[counts]
        return found


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


def _chosen(graph: Graph, layers: str | Iterable[str] | None) -> list[CallSite | Norm]:
    """The call sites to look at, and the batch normalizations at them."""
    sites = [site for site in graph.walk() if not isinstance(site.operation, Graph) and site.inputs]
    found = [each for site in sites for each in _at(site)]
    if layers is None:
        return [each for each in found if isinstance(each, Norm) or role_of(each.operation) is Role.ACTIVATION]
    globs = (layers,) if isinstance(layers, str) else tuple(layers)
    for glob in globs:
        if not any(matches(each.path, glob) for each in found):
            raise OptionError(
                f"Option layers holds {glob!r}, which matches no layer of model {graph.name!r}. "
                f"{by_path(glob, found[0].path if found else 'conv1')}"
            )
    return [each for each in found if any(matches(each.path, glob) for glob in globs)]


def _at(site: CallSite) -> Iterator[CallSite | Norm]:
    """What there is to look at where a site is: itself, unless it is a batch normalization, and those that it holds."""
    norms = norms_at(site)
    if all(norm.address != site.address for norm in norms):
        yield site
    yield from norms
