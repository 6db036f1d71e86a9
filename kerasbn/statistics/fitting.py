"""Fit normalizations to others whose places they took, layer after layer, by least squares.

Where z is what the new layer makes of its input with gamma = 1 and beta = 0, and y what the old one yields on the same
examples, for each weight over the values that it acts on:

    gamma = cov(z, y) / var(z)        beta = mean(y) - gamma mean(z)

A layer is fitted on what it gets behind those that are fitted already, so that it makes up for them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.catalog.normalization import ChannelMap, weights_for
from kerasbn.errors import OptionError
from kerasbn.graph.model import CallSite, Graph, core_of, step_axes
from kerasbn.graph.read import read
from kerasbn.graph.run import Run, Runner, call_at_inference, filled, outputs_of
from kerasbn.statistics.data import batches
from kerasbn.statistics.measured import set_statistics
from kerasbn.statistics.running import running

_WAITING_BYTES = 2**30
"""How much memory the batches may take that wait between layers; beyond that they are run again."""


@dataclasses.dataclass(frozen=True)
class Moved:
    """How far fitted layers are from what they replace, on the sample.

    Attributes:
        outputs: The root mean square of the change of the model's outputs, relative to that of the outputs.
        layers: Likewise of what is left at each fitted layer, by the address of its call.
    """

    outputs: float
    layers: Mapping[str, float]

    def __str__(self) -> str:
        address, most = max(self.layers.items(), key=lambda item: item[1])
        return (
            f"Fitted on data, what replaces normalization moves the outputs by {self.outputs:.2g} of their root mean "
            f"square there; at the layers themselves by {np.median([*self.layers.values()]):.2g} (the median), and by "
            f"{most:.2g} at most, at {address}."
        )


def fit(source: Graph, model: keras.Model, replaced: Mapping[str, keras.layers.Layer], data: Any) -> Moved:
    """Fit the weights of normalizations to what others compute whose places they took.

    Args:
        source: The graph with the others.
        model: The model with the new ones.
        replaced: The new ones, by the addresses of their calls in both.
        data: A sample of inputs, see `kerasbn.statistics.data.batches`.

    Raises:
        OptionError: if the data does not fit the model, or something is not finite on it.
    """
    if _keras.is_shared(model):
        raise OptionError(
            f"Several processes hold the weights of model {model.name!r} together, and what replaces normalization is "
            "fitted in one. Rewrite it in a process by itself, save it, and load the file in all of them."
        )
    inputs = [*batches(model, data, "Fitting")]
    fitting = _Fitting(source, model, replaced, inputs)
    layers = fitting.run()
    moved, size = 0.0, 0.0
    for each in inputs:
        with running(model), _keras.aside(model):
            pairs = zip(*(outputs_of(graph, each, call_at_inference) for graph in (source, read(model))), strict=True)
            for old, new in ((array_of(old), array_of(new)) for old, new in pairs):
                moved, size = moved + float(np.sum((new - old) ** 2)), size + float(np.sum(old**2))
    return Moved(_relative(moved, size), layers)


class _Fitting:
    """The stages of one fit, one for each call of a new layer, and the batches that wait between them."""

    def __init__(
        self, source: Graph, model: keras.Model, replaced: Mapping[str, keras.layers.Layer], inputs: list[Any]
    ) -> None:
        self._model = model
        self._replaced = replaced
        self._inputs = inputs
        self._old, self._new = (Runner(graph, lambda site: site.address in replaced) for graph in (source, read(model)))
        self._old_sites, self._new_sites = (dict(_numbered(each.sites, replaced)) for each in (self._old, self._new))
        self._waiting: list[tuple[Run, Run]] = []
        self._known: dict[keras.layers.Layer, Comoments] = {}

    def run(self) -> dict[str, float]:
        """Fit each layer in the order of the model; what is left at each."""
        left: dict[str, float] = {}
        open_ones = [*self._new_sites]
        while open_ones:
            place = open_ones[0]
            later = frozenset(self._old_sites[each] for each in open_ones[1:])
            not_yet = frozenset(self._new_sites[each] for each in open_ones).__contains__
            layer = self._replaced[place[0]]
            fitted = _Fitted(layer, len(self._new_sites[place].inputs[0].shape))
            given = fitted.begin()
            found = self._known.get(layer)
            for old_run, new_run in self._runs():
                with running(self._model), _keras.aside(self._model):
                    wanted = self._wanted(old_run, self._old_sites[place], later)
                    self._new.advance(new_run, call_at_inference, hold=not_yet)
                    (value, *_), _ = filled(self._new_sites[place], new_run.values)
                    moments = fitted.moments(value, wanted)
                found = moments if found is None else found + moments
            assert found is not None
            self._known[layer] = found
            left[place[0]] = fitted.finish(found, given)
            del open_ones[0]
        return left

    def _wanted(self, run: Run, target: CallSite, later: frozenset[CallSite]) -> Any:
        """What the old layer yields at a call."""
        seen: list[Any] = []

        def call(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            outputs = call_at_inference(site, args, kwargs)
            if site is target:
                seen.append(outputs)
            return outputs

        self._old.advance(run, call, hold=lambda site: site in later)
        return seen[0]

    def _runs(self) -> Iterator[tuple[Run, Run]]:
        waiting, self._waiting = self._waiting, []
        runs = iter(waiting) if waiting else ((self._old.start(each), self._new.start(each)) for each in self._inputs)
        size = 0
        for pair in runs:
            yield pair
            size += sum(run.nbytes for run in pair)
            if size <= _WAITING_BYTES:
                self._waiting.append(pair)
        if size > _WAITING_BYTES:
            self._waiting = []


def _numbered(sites: tuple[CallSite, ...], wanted: Mapping[str, Any]) -> Iterator[tuple[tuple[str, int], CallSite]]:
    """Call sites by their address and which of those it is: a model that is called twice has each of its own twice."""
    seen: Counter[str] = Counter()
    for site in sites:
        if site.address in wanted:
            yield (site.address, seen[site.address]), site
            seen[site.address] += 1


class _Fitted:
    """A layer that is being fitted."""

    def __init__(self, layer: keras.layers.Layer, rank: int) -> None:
        self._layer = layer
        self._norm: Any = core_of(layer)
        own = {variable.name: variable for variable in _keras.own_variables(self._norm)}
        self._slope = own.get("gamma", own.get("scale"))
        self._shift = own.get("beta")
        self._is_batch = isinstance(self._norm, keras.layers.BatchNormalization)
        steps = step_axes(layer)
        axes = keras.tree.flatten(getattr(self._norm, "axis", -1))
        inner = rank - steps
        self._axes = [axis for axis in range(rank) if axis not in {each % inner + steps for each in axes}]

    def begin(self) -> tuple[Any, Any]:
        """Have it normalize and nothing else; the weights that it had."""
        slope, shift = (None if each is None else array_of(each) for each in (self._slope, self._shift))
        for weight, value in ((self._slope, 1.0), (self._shift, 0.0)):
            if weight is not None:
                _keras.set_value(weight, value)
        return slope, shift

    def moments(self, value: Any, wanted: Any) -> Comoments:
        """Those of what it makes of a value, or of a batch normalization's value itself, and of what is wanted."""
        made = value if self._is_batch else self._layer(value)
        return Comoments.of(made, wanted, self._axes)

    def finish(self, found: Comoments, given: tuple[Any, Any]) -> float:
        """Set the weights; what is left, relative to what is wanted."""
        if not found.finite:
            raise OptionError(
                f"On the data given, what layer {self._norm.name!r} normalizes, or what it is to yield, is not finite. "
                "Take the inputs that are NaN or infinite out of it, or look for the layer ahead of it that overflows."
            )
        if self._is_batch:
            return self._finish_batch(found, given)
        slope = given[0] if self._slope is not None else np.ones(())
        if self._slope is not None:
            slope = found.slope(slope.reshape(found.x.shape), through_zero=self._shift is None)
            _keras.set_value(self._slope, slope.reshape(self._slope.shape))
        shift = np.zeros(())
        if self._shift is not None:
            shift = found.y - slope * found.x
            _keras.set_value(self._shift, shift.reshape(self._shift.shape))
        return found.left(slope, shift)

    def _finish_batch(self, found: Comoments, given: tuple[Any, Any]) -> float:
        """A batch normalization takes the statistics too."""
        mean, variance = found.x, found.xx / max(found.count, 1)
        slope = np.ones(()) if given[0] is None else given[0]
        fallback = slope / np.sqrt(variance + self._norm.epsilon)
        slope = found.slope(fallback, through_zero=False) if self._slope is not None else fallback
        shift = found.y - slope * found.x if self._shift is not None else -slope * mean
        set_statistics(self._norm, mean, variance)
        gamma, beta = weights_for(ChannelMap(slope, shift), mean, variance, self._norm.epsilon)
        for weight, value in ((self._slope, gamma), (self._shift, beta)):
            if weight is not None:
                _keras.set_value(weight, value)
        return found.left(slope, shift)


@dataclasses.dataclass(frozen=True, eq=False)
class Comoments:
    """Moments of two values at the same places, for each weight.

    Attributes:
        count: How many pairs there are of each.
        x: The mean of the one.
        y: That of the other.
        xx: The sum of squared distances from the mean of the one.
        xy: That of the products of the distances.
        yy: That of the squares of the other.
    """

    count: float
    x: Array
    y: Array
    xx: Array
    xy: Array
    yy: Array

    @classmethod
    def of(cls, one: Any, other: Any, axes: list[int]) -> Comoments:
        """Those of two tensors over some axes."""
        one, other = (
            each if keras.backend.standardize_dtype(each.dtype) == "float64" else ops.cast(each, "float32")
            for each in (one, other)
        )
        x, y = (ops.mean(each, axes, keepdims=True) for each in (one, other))
        one, other = one - x, other - y
        sums = (ops.sum(a * b, axes) for a, b in ((one, one), (one, other), (other, other)))
        count = float(np.prod([int(one.shape[axis]) for axis in axes]))
        return cls(count, *(array_of(ops.squeeze(each, axes)) for each in (x, y)), *map(array_of, sums))

    def __add__(self, more: Comoments) -> Comoments:
        count = self.count + more.count
        share, weight = more.count / count, self.count * more.count / count
        dx, dy = more.x - self.x, more.y - self.y
        return Comoments(
            count,
            self.x + dx * share,
            self.y + dy * share,
            self.xx + more.xx + dx * dx * weight,
            self.xy + more.xy + dx * dy * weight,
            self.yy + more.yy + dy * dy * weight,
        )

    @property
    def finite(self) -> bool:
        """Whether no value was NaN or infinite."""
        return bool(np.all(np.isfinite(self.xx)) and np.all(np.isfinite(self.yy)))

    def slope(self, otherwise: Array, *, through_zero: bool) -> Array:
        """That of the line from the one to the other that fits best; `otherwise` where the one is constant."""
        xx, xy = self.xx, self.xy
        if through_zero:
            xx, xy = xx + self.count * self.x**2, xy + self.count * self.x * self.y
        constant = xx <= 1e-12 * self.count * (1 + self.x**2)
        return np.where(constant, otherwise, xy / np.where(constant, 1.0, xx))

    def left(self, slope: Array, shift: Array) -> float:
        """The root mean square of what a line misses, relative to that of the other."""
        missed = self.yy - 2 * slope * self.xy + slope**2 * self.xx
        missed = missed + self.count * (self.y - slope * self.x - shift) ** 2
        return _relative(float(np.sum(np.maximum(missed, 0))), float(np.sum(self.yy + self.count * self.y**2)))


def _relative(moved: float, size: float) -> float:
    return float(np.sqrt(moved / size)) if size else float(moved > 0)
