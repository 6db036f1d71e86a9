"""Heads: the layers that yield the predictions, which a normalization would bend to mean 0 and variance 1.

The law: a linear layer is a head if from its value all paths to outputs of the model go through
arithmetic, shape, pooling, resampling and output activations alone, so past no further layer that mixes
channels or locations (one number a channel is arithmetic), no normalization and no hidden activation,
such as ReLU; or if its value is an output in this way without any arithmetic, whatever else uses it. A
layer whose very value is an output is one in any case: its name is that of the output.
"""

from __future__ import annotations

from kerasbn.catalog import activations
from kerasbn.catalog.roles import KEEPING, NORMALIZING, Role, applied_activation, mixes
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, Value

_FURTHER_LAYERS = frozenset({Role.LINEAR, Role.EMBEDDING, *NORMALIZING})


def heads(flow: Flow) -> frozenset[CallSite]:
    """The call sites whose values are predictions already: linear layers, and what follows them."""
    predictions: set[Value] = set()
    outputs: set[Value] = set()
    for site in reversed(flow.sites):
        for value in site.outputs:
            users = flow.users(value)
            if value in flow.outputs or any(
                _leaves_as_it_is(flow, user) and not outputs.isdisjoint(user.outputs) for user in users
            ):
                outputs.add(value)
            elif users and all(_passes(flow, user) and _lead_on(flow, user) <= predictions | outputs for user in users):
                predictions.add(value)
    found = predictions | outputs
    return frozenset(
        site
        for site in flow.sites
        if not flow.outputs.isdisjoint(site.outputs) or (not found.isdisjoint(site.outputs) and not _is_hidden(site))
    )


def _lead_on(flow: Flow, site: CallSite) -> set[Value]:
    """The values of a site that go anywhere."""
    return {value for value in site.outputs if flow.users(value) or value in flow.outputs}


def _leaves_as_it_is(flow: Flow, site: CallSite) -> bool:
    return flow.role(site) in KEEPING or (flow.role(site) is Role.ACTIVATION and not _is_hidden(site))


def _passes(flow: Flow, site: CallSite) -> bool:
    """Whether a site does no more to predictions than arithmetic."""
    role = flow.role(site)
    if role is Role.ACTIVATION:
        return not _is_hidden(site)
    return role not in _FURTHER_LAYERS and not mixes(site.operation)


def _is_hidden(site: CallSite) -> bool:
    """Whether a site applies a hidden activation, by itself or built in."""
    return applied_activation(site.operation) not in activations.OUTPUT
