"""The one layer that computes what parallel linear branches do: its window, its kernel, its bias.

It is like one of the branches' own layers, the widest, but for its weights; identities and
kernels of fewer places go to their places in its kernel, grouped ones into the blocks of its groups.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.catalog.linear import LINEAR, Kernel, adds_bias_in_place
from kerasbn.graph.carry import carry_description
from kerasbn.graph.clone import make, spec_of
from kerasbn.graph.model import CallSite, Value
from kerasbn.passes.merging.form import Form, Term, is_plain
from kerasbn.passes.merging.reading import lengths
from kerasbn.passes.merging.window import Window, window_of
from kerasbn.reasons import Reason, Refusal


@dataclasses.dataclass(frozen=True)
class Merged:
    """A layer in the place of branches.

    Attributes:
        like: The call of the layer that it is like.
        entering: What it is called on: the base, or what `like` is called on.
        window: Where in the base it looks.
        groups: In how many groups its channels are.
    """

    like: CallSite
    entering: Value
    window: Window
    groups: int
    _form: Form

    def places(self) -> Mapping[Term, list[int]]:
        """Where in the kernel the places of each term are.

        Raises:
            Refusal: if one of them is not there.
        """
        return {term: [self.window.index(offset) for offset in term.window.offsets] for term in self._form.terms}

    def make(self, name: str) -> keras.layers.Layer:
        """The layer, with its weights.

        Raises:
            Refusal: if one of them cannot be held in their type.
        """
        source = cast("keras.layers.Layer", self.like.operation)
        with np.errstate(all="ignore"):  # what is not finite is found by asking
            weights, bias = self._weights()
        if not np.max([np.max(np.abs(weights)), np.max(np.abs(bias))]) <= np.finfo(source.variable_dtype).max:
            raise Refusal(Reason.NON_FINITE)
        has_bias = bool(np.any(bias))
        if not adds_bias_in_place(self.like, full=has_bias):
            raise Refusal(Reason.BIAS_AXIS)
        sizes = {"kernel_size": self.window.sizes} if hasattr(source, "kernel_size") else {}
        layer = make(spec_of(source, name=name, use_bias=has_bias, **sizes))
        carry_description(source, layer)
        layer.name = name
        with _keras.deferred_variables():
            layer.build(self.entering.shape)
            kernel = _kernel_of(layer)
            variable = _variable(layer, kernel.name)
            _keras.set_value(variable, _LAID_OUT[kernel.axes](weights).reshape(variable.shape))
            if has_bias:
                _keras.set_value(layer.bias, bias)
        layer.trainable = source.trainable
        return layer

    def _weights(self) -> tuple[Array, Array]:
        """The kernel, by place, group, input and output within the group, and the bias."""
        terms, bias = self._form.terms, self._form.shift
        channels = len(terms[0].ahead.scale)
        shape = (math.prod(self.window.sizes), self.groups, channels // self.groups, len(bias) // self.groups)
        weights = np.zeros(shape)
        for term, places in self.places().items():
            if term.kernel is None:
                taps = term.scale.reshape(1, channels, 1, 1)
            else:
                layer: Any = term.kernel.operation
                taps = taps_of(layer)
                own = 0.0 if layer.bias is None else array_of(layer.bias)
                passed = np.einsum("kgio,gi->go", taps, _grouped(term.ahead.shift, taps.shape[1])).reshape(-1)
                bias = bias + term.scale * (own + passed)
                taps = taps * _grouped(term.ahead.scale, taps.shape[1])[None, :, :, None]
                taps = taps * _grouped(term.scale, taps.shape[1])[None, :, None, :]
            blocks = taps.shape[1] // self.groups
            wide = weights.reshape(*shape[:2], blocks, taps.shape[2], blocks, taps.shape[3])  # a view
            taps = taps.reshape(len(taps), self.groups, blocks, *taps.shape[2:])
            for block in range(blocks):
                wide[places, :, block, :, block, :] += taps[:, :, block]
        return weights, bias


def merged(form: Form, base: Value, axis: int) -> Merged:
    """The layer that computes a form, where one does that takes no more multiplications than its branches.

    Raises:
        Refusal: if there is none.
    """
    kernels = [term for term in form.terms if term.kernel is not None]
    groups = math.gcd(*(groups_of(term) for term in form.terms))
    widest = sorted(kernels, key=lambda term: -math.prod(term.window.sizes))
    alike = [term for term in widest if groups_of(term) == groups]
    _check_cost(len({offset for term in form.terms for offset in term.window.offsets}), groups, kernels)
    if not alike:
        raise Refusal(Reason.ALIGNMENT, "none of the branches has the groups of one layer for all")
    refused: Refusal | None = None
    for term in alike:
        try:
            found = _like(term, form, base, axis, groups)
            found.places()
        except Refusal as refusal:
            refused = refused or refusal.with_traceback(None)
        else:
            _check_cost(math.prod(found.window.sizes), groups, kernels)
            return found
    assert refused is not None
    raise refused


def _like(term: Term, form: Form, base: Value, axis: int, groups: int) -> Merged:
    """A layer like the one of a term, as wide along each axis as the widest where it is padded to the same size."""
    site = cast("CallSite", term.kernel)
    layer: Any = site.operation
    sizes = term.window.sizes
    if getattr(layer, "padding", "") == "same":
        all_sizes = [each.window.sizes for each in form.terms]
        sizes = tuple(map(max, zip(*all_sizes, strict=True)))
    own = window_of(layer, lengths(site.inputs[0], axis))
    window = window_of(layer, lengths(site.inputs[0], axis), sizes)
    by = tuple(one - other for one, other in zip(term.window.first, own.first, strict=True))
    lost = tuple(one - other for one, other in zip(term.window.lost, own.lost, strict=True))
    moved = window.moved(by, lost)
    if not any(by) and not any(lost):
        return Merged(site, base, moved, groups, form)
    if not is_plain(term):
        raise Refusal(Reason.ALIGNMENT, "its zeros lie behind a scale")
    return Merged(site, site.inputs[0], moved, groups, form)


def _check_cost(places: int, groups: int, kernels: Sequence[Term]) -> None:
    """Refuse a kernel of so many places that multiplies more often, to yield one, than those of all branches."""
    inputs, outputs = len(kernels[0].ahead.scale), len(kernels[0].scale)
    sites = dict.fromkeys(cast("CallSite", term.kernel) for term in kernels)
    apart = sum(math.prod(_kernel_of(site.operation).shape) for site in sites)
    together = places * inputs * outputs // groups
    if together > apart:
        raise Refusal(Reason.DEARER, f"{together} multiplications for a place, where the branches take {apart}")


def groups_of(term: Term) -> int:
    """In how many groups a term takes its channels: one for each where it has no kernel, or a depthwise one."""
    if term.kernel is None:
        return len(term.scale)
    kernel = _kernel_of(term.kernel.operation)
    sizes = dict(zip(kernel.axes, kernel.shape, strict=True))
    return sizes["i"] if kernel.axes == "kim" else sizes.get("g", 1)


def taps_of(layer: keras.layers.Layer) -> Array:
    """A kernel by place, group, and input and output within the group."""
    kernel = _kernel_of(layer)
    weights = array_of(_variable(layer, kernel.name)).reshape(kernel.shape)
    match kernel.axes:
        case "io":
            return weights[None, None]
        case "kim":
            return weights[:, :, None, :]
    return weights.transpose(0, 2, 1, 3)


_LAID_OUT = {
    "io": lambda taps: taps[0, 0],
    "kim": lambda taps: taps[:, :, 0, :],
    "kigo": lambda taps: taps.transpose(0, 2, 1, 3),
}
"""A kernel by place, group, input and output, in the order that a layer has it."""


def _kernel_of(layer: Any) -> Kernel:
    (kernel,) = LINEAR[type(layer)].kernels(layer)
    return kernel


def _grouped(channels: Array, groups: int) -> Array:
    return np.asarray(channels).reshape(groups, -1)


def _variable(layer: Any, name: str) -> keras.Variable:
    return next(variable for variable in layer.variables if variable.name == name)
