"""Search a graph for sums of parallel linear branches, and scaled linear layers, and how each becomes one layer."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, cast

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.catalog.linear import channel_axis
from kerasbn.catalog.normalization import is_known
from kerasbn.facts.facts import Facts
from kerasbn.graph.model import CallSite, Graph, Value
from kerasbn.passes.merging.form import NotLinear, base_form
from kerasbn.passes.merging.layer import Merged, merged
from kerasbn.passes.merging.reading import KERNELS, Reader, maps_channels, may_be_linear, summands
from kerasbn.reasons import Reason, Refusal, Skip


@dataclasses.dataclass(frozen=True)
class Merge:
    """Branches that become one layer.

    Attributes:
        site: The sum.
        branches: How many there are.
        merged: The layer.
        gone: The other call sites of the sum's graph that go.
        norms: The addresses of the batch normalizations on the way, in graphs inside as well.
    """

    site: CallSite
    branches: int
    merged: Merged
    gone: tuple[CallSite, ...]
    norms: tuple[str, ...]


def search(facts: Facts) -> Iterator[Merge | Skip]:
    """Each sum of parallel linear branches: what it becomes, or why it stays; the last one of nested sums first.

    What scales and shifts a linear layer by channels is one branch by itself, which without another stays silently.
    """
    for graph in _unmasked(facts.graph):
        taken: set[CallSite] = set()
        for site in reversed(graph.sites):
            is_sum = summands(site) is not None
            if site in taken or not (is_sum or maps_channels(site)):
                continue
            try:
                merge = _merge(facts, graph, site)
            except NotLinear:
                continue
            except Refusal as refusal:
                if is_sum:
                    yield refusal.at(site.address)
            else:
                taken.update(merge.gone)
                yield merge


def _unmasked(graph: Graph) -> dict[Graph, None]:
    """A graph and those inside it that are never called with a mask, which layers and sums pass on differently."""
    found: dict[Graph, None] = {}
    masked: set[Graph] = set()

    def visit(each: Graph, with_mask: bool) -> None:
        found[each] = None
        if with_mask:
            masked.add(each)
        for site in each.sites:
            if isinstance(site.operation, Graph):
                given = keras.tree.flatten(site.kwargs.get("mask"))
                visit(site.operation, with_mask or any(mask is not None for mask in given))

    visit(graph, False)
    return {each: None for each in found if each not in masked}


def _merge(facts: Facts, graph: Graph, site: CallSite) -> Merge:
    """The merge of a sum.

    Raises:
        NotLinear: where its inputs are something else than linear branches of one value.
        Refusal: if they stay for another reason.
    """
    ways = [dict.fromkeys(_on_the_way_to(graph, value)) for value in dict.fromkeys(site.inputs)]
    common = set.intersection(*map(set, ways))
    axis = _axis(graph, {value: None for way in ways for value in way})
    if common and axis is not None:
        order = {value: index for index, each in enumerate(graph.sites) for value in each.outputs}
        for base in sorted(common, key=order.__getitem__, reverse=True):
            with contextlib.suppress(NotLinear):
                return _merge_over(facts, graph, site, base, axis)
    raise NotLinear


def _merge_over(facts: Facts, graph: Graph, site: CallSite, base: Value, axis: int) -> Merge:
    """The merge of a sum whose branches begin at a value.

    Raises:
        NotLinear: if they do not, or are something else.
        Refusal: if they stay for another reason.
    """
    _check_all_begin_at(graph, site, base)
    rank, channels = len(base.shape), base.shape[axis] if axis < len(base.shape) else None
    if rank != len(site.outputs[0].shape) or channels is None or _keras.mask_of(base.spec) is not None:
        raise NotLinear
    reader = Reader(facts, axis)
    with _keras.room_for_depth(len(graph.sites)), np.errstate(all="ignore"):  # what is not finite is found by asking
        form = reader.form(graph, site.outputs[0], {base: base_form(channels, rank - 2)})
    if all(term.kernel is None for term in form.terms):
        raise NotLinear
    found = merged(form, base, axis)
    for each in reader.read:
        _check_layer(facts, each, site)
    own = set(graph.sites)
    gone = [each for each in reader.read if each in own and each is not site and found.entering not in each.outputs]
    for each in gone:
        (value,) = each.outputs
        if value in graph.output_values:
            raise Refusal(Reason.OUTPUT, each.address)
        if others := [user for user in graph.consumers[value] if user not in reader.read]:
            raise Refusal(Reason.OTHER_CONSUMERS, f"{each.address} also feeds {others[0].address}")
    norms = tuple(each.address for each in reader.read if is_known(each.operation))
    return Merge(site, len(form.terms), found, tuple(gone), norms)


def _check_layer(facts: Facts, site: CallSite, total: CallSite) -> None:
    """Refuse to take a layer into another one that holds its weights in a form of its own, or is not there alone."""
    layer: Any = site.operation
    has_weights = isinstance(layer, Graph) or (isinstance(layer, keras.layers.Layer) and bool(layer.weights))
    if has_weights and len(facts.graph.calls.get(layer, ())) > 1:
        raise Refusal(Reason.SHARED_LAYER, site.address)
    if layer in facts.tied:
        raise Refusal(Reason.TIED_WEIGHTS, site.address)
    if type(layer) in KERNELS:
        if layer.dtype_policy.quantization_mode or getattr(layer, "lora_enabled", False):
            raise Refusal(Reason.QUANTIZED, site.address)
        if layer.variable_dtype not in ("float32", "float64") or layer.compute_dtype != total.outputs[0].spec.dtype:
            raise Refusal(Reason.PRECISION, site.address)


def _on_the_way_to(graph: Graph, value: Value) -> Iterator[Value]:
    """The values that a value may be a linear branch of, itself among them, with one kernel between at most."""
    seen: set[tuple[Value, bool]] = set()
    waiting = [(value, False)]
    while waiting:
        each, behind_kernel = here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        yield each
        site = graph.producers.get(each)
        if site is not None and may_be_linear(site) and not (behind_kernel and type(site.operation) in KERNELS):
            waiting += ((above, behind_kernel or type(site.operation) in KERNELS) for above in site.inputs)


def _check_all_begin_at(graph: Graph, site: CallSite, base: Value) -> None:
    """Refuse a base that some way to a sum does not come from."""
    seen = {base}
    waiting = [*site.inputs]
    while waiting:
        if (value := waiting.pop()) not in seen:
            seen.add(value)
            above = graph.producers.get(value)
            if above is None or not may_be_linear(above):
                raise NotLinear
            waiting += above.inputs


def _axis(graph: Graph, values: Iterable[Value]) -> int | None:
    """The axis of the channels of the first linear layer that yields one of some values; `None` if none does."""
    for site in filter(None, map(graph.producers.get, values)):
        for each in site.operation.walk() if isinstance(site.operation, Graph) else (site,):
            if type(each.operation) in KERNELS:
                axis = cast("int", channel_axis(cast("keras.layers.Layer", each.operation)))
                return axis % len(each.outputs[0].shape)
    return None
