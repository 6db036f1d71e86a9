"""Gates and modulators: layers that scale or shift the features of another branch.

    gate             a value in (0, 1) that multiplies: gated linear units, WaveNet, highway layers,
                     spatial attention; behind its sigmoid a normalization would make it no gate any more
    squeeze-excite   a gate pooled over all locations, of features that are not (Hu et al., 2018)
    modulator        a linear layer whose value does nothing but scale another branch's features, or shift
                     what was scaled so: FiLM (Perez et al., 2018), SPADE, the couplings of a flow

A linear layer that reads what the other operand comes from as well is no modulator: the two are one
gated unit, as in SwiGLU, or an attention's weights and its values.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from functools import cached_property

from kerasbn.catalog import activations
from kerasbn.catalog.roles import KEEPING, Role, applied_activation, mixes
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, Value


class Gates:
    """What multiplies in a network."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    @cached_property
    def squeeze_excite(self) -> frozenset[CallSite]:
        """The linear sites between a global pooling and the product that its outcome scales."""
        found: set[CallSite] = set()
        for site in self._flow.sites:
            if self._is_product(site):
                ways = [self._behind_pooling(value) for value in site.inputs]
                if None in ways:  # there are features with locations, which the others scale
                    found.update(itertools.chain(*filter(None, ways)))
        return frozenset(found)

    @cached_property
    def gating(self) -> frozenset[CallSite]:
        """The sites that apply a sigmoid, by itself or built in, to what multiplies."""
        multiplying: set[Value] = set()
        for site in reversed(self._flow.sites):
            if self._is_product(site) or (self._is_arithmetic(site) and not multiplying.isdisjoint(site.outputs)):
                multiplying.update(site.inputs)
        return frozenset(
            site
            for site in self._flow.sites
            if applied_activation(site.operation) in activations.UNIT and not multiplying.isdisjoint(site.outputs)
        )

    @cached_property
    def modulators(self) -> frozenset[CallSite]:
        """The linear sites that only scale another branch's features, or shift what is scaled so."""
        modulating: set[Value] = set()
        for site in reversed(self._flow.sites):
            modulating.update(value for value in site.outputs if self._only_modulates(value, modulating))
        return frozenset(
            site
            for site in self._flow.sites
            if _is_plainly_linear(self._flow, site) and not modulating.isdisjoint(site.outputs)
        )

    def _only_modulates(self, value: Value, modulating: Set[Value]) -> bool:
        users = self._flow.users(value)
        return (
            bool(users)
            and value not in self._flow.outputs
            and all(
                self._scales(value, user)
                or self._shifts(value, user)
                or (
                    len(user.inputs) == 1
                    and (self._is_arithmetic(user) or self._flow.role(user) is Role.PRODUCT)
                    and set(user.outputs) <= modulating
                )
                for user in users
            )
        )

    def _scales(self, value: Value, product: CallSite) -> bool:
        """Whether a value scales the other operand of a product, and not the other way round."""
        if not self._is_product(product) or len(product.inputs) != 2:
            return False
        (other,) = (each for each in product.inputs if each is not value)
        own, others = self._plain_sources[value], self._plain_sources[other]
        read = {each for site in own for each in site.inputs}
        if not own or own & others or self._comes_from(other, read):
            return False
        return not others or _is_broadcast(value, other) or self._is_shifted_from(product, read)

    def _comes_from(self, value: Value, sources: Set[Value]) -> bool:
        """Whether a value is computed from one of some others."""
        seen, waiting = {value}, [value]
        while waiting and sources.isdisjoint(seen):
            producer = self._flow.producer(waiting.pop())
            new = set(producer.inputs) - seen if producer is not None else set()
            seen |= new
            waiting += new
        return not sources.isdisjoint(seen)

    def _shifts(self, value: Value, merge: CallSite) -> bool:
        """Whether a value shifts what was scaled by a modulator."""
        others = [each for each in merge.inputs if each is not value]
        if self._flow.role(merge) is not Role.MERGE or len(others) != 1 or not self._plain_sources[value]:
            return False
        (other,) = others
        product = self._flow.producer(other)
        while product is not None and self._flow.role(product) in KEEPING and product.inputs:
            product = self._flow.producer(product.inputs[0])
        return product is not None and any(self._scales(each, product) for each in set(product.inputs))

    def _is_shifted_from(self, product: CallSite, read: Set[Value]) -> bool:
        """Whether to a product is added what comes from the same values as those given."""
        added = (each for user in self._flow.users(product.outputs[0]) for each in self._added(user, product))
        return any(not read.isdisjoint(site.inputs) for each in added for site in self._plain_sources[each])

    def _added(self, merge: CallSite, product: CallSite) -> Iterator[Value]:
        if self._flow.role(merge) is Role.MERGE:
            yield from (each for each in merge.inputs if each not in product.outputs)

    @cached_property
    def _plain_sources(self) -> Mapping[Value, frozenset[CallSite]]:
        """The linear sites that each value comes from by arithmetic alone."""
        found: dict[Value, frozenset[CallSite]] = defaultdict(frozenset)
        for site in self._flow.sites:
            sources: frozenset[CallSite] = frozenset()
            if _is_plainly_linear(self._flow, site):
                sources = frozenset({site})
            elif self._flow.role(site) is Role.PRODUCT or self._is_arithmetic(site):
                sources = sources.union(*(found[value] for value in site.inputs))
            found.update(dict.fromkeys(site.outputs, sources))
        return found

    def _is_product(self, site: CallSite) -> bool:
        """Whether a site multiplies values with one another."""
        return self._flow.role(site) is Role.PRODUCT and len(set(site.inputs)) > 1

    def _is_arithmetic(self, site: CallSite) -> bool:
        """Whether a site only calculates with the values, but for products: no weights, no hidden activation."""
        role = self._flow.role(site)
        if role is Role.ACTIVATION:
            return applied_activation(site.operation) in activations.OUTPUT - activations.UNIT
        return role in KEEPING | {Role.POOLING, Role.MERGE, Role.OTHER} and not mixes(site.operation)

    def _behind_pooling(self, value: Value) -> list[CallSite] | None:
        """The linear sites between a global pooling and a value; `None` where it comes from none."""
        linear: list[CallSite] = []
        site = self._flow.producer(value)
        while site is not None and len(site.inputs) == 1:
            role = self._flow.role(site)
            if role is Role.GLOBAL_POOLING:
                return linear
            if role is Role.LINEAR:
                linear.append(site)
            elif role not in KEEPING | {Role.ACTIVATION, Role.MERGE, Role.PRODUCT}:
                break
            site = self._flow.producer(site.inputs[0])
        return None


def _is_plainly_linear(flow: Flow, site: CallSite) -> bool:
    return (
        flow.role(site) is Role.LINEAR and applied_activation(site.operation) in activations.OUTPUT - activations.UNIT
    )


def _is_broadcast(value: Value, other: Value) -> bool:
    """Whether a value is repeated along an axis to fit another."""
    if len(value.shape) != len(other.shape):
        return len(value.shape) < len(other.shape)
    return any(one == 1 and size != 1 for one, size in zip(value.shape, other.shape, strict=True))
