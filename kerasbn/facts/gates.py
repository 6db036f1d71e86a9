"""Squeeze-and-excite gates (Hu et al., 2018): pooled over all locations, then multiplied with the features."""

from __future__ import annotations

from collections.abc import Iterator

from kerasbn.catalog.roles import KEEPING, Role
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, Value


def gates(flow: Flow) -> Iterator[CallSite]:
    """The linear sites between a global pooling and the product that its outcome scales."""
    for site in flow.sites:
        if flow.role(site) is Role.PRODUCT and len(site.inputs) > 1:
            for value in site.inputs:
                yield from _gate_behind(flow, value)


def _gate_behind(flow: Flow, value: Value) -> list[CallSite]:
    linear: list[CallSite] = []
    site = flow.producer(value)
    while site is not None and len(site.inputs) == 1:
        role = flow.role(site)
        if role is Role.GLOBAL_POOLING:
            return linear
        if role is Role.LINEAR:
            linear.append(site)
        elif role not in KEEPING | {Role.ACTIVATION, Role.MERGE, Role.PRODUCT}:
            break
        site = flow.producer(site.inputs[0])
    return []
