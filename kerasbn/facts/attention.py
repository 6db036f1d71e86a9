"""What an attention multiplies: queries, keys and values.

The law: a value that is multiplied with another one as matrices are, and all that becomes one by
rearranging, joining, scaling or an activation, as the kernels of linear attention apply.
"""

from __future__ import annotations

from kerasbn import _keras
from kerasbn.catalog.roles import PER_CHANNEL, Role, joins
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, Value

_THROUGH = PER_CHANNEL | {Role.ACTIVATION}


def attended(flow: Flow) -> set[Value]:
    """The values that an attention multiplies, and those that become one."""
    found: set[Value] = set()
    for site in reversed(flow.sites):
        becomes = flow.role(site) in _THROUGH or joins(site.operation) or _scales(flow, site)
        if flow.role(site) is Role.ATTENTION or (becomes and not found.isdisjoint(site.outputs)):
            found.update(site.inputs)
    return found


def _scales(flow: Flow, site: CallSite) -> bool:
    """Whether a site multiplies with a constant."""
    is_division = _keras.operation_name(site.operation) in ("Divide", "TrueDivide")
    return len(site.inputs) == 1 and (flow.role(site) is Role.PRODUCT or is_division)
