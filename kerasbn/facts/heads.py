"""Heads: what yields an output of the model, or becomes one through activations and reshaping alone."""

from __future__ import annotations

from kerasbn.catalog.roles import KEEPING, Role
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import Value


def values_that_become_outputs(flow: Flow) -> set[Value]:
    """The outputs of a model, and what turns into them without another layer."""
    return flow.leading_to(flow.outputs, through=KEEPING | {Role.ACTIVATION})
