"""How many recurrent layers there are one upon another: from the first one that a value goes through to the last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from kerasbn.catalog.roles import Role
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, Value


def heights(flow: Flow) -> Mapping[CallSite, int]:
    """For each call of a recurrent layer, the most such calls on a way that it lies on.

    A way goes along the sequences, not along the states that a layer starts from.
    """
    calls = {site for site in flow.sites if flow.role(site) is Role.RECURRENT}
    ahead: dict[Value, int] = defaultdict(int)
    behind: dict[Value, int] = defaultdict(int)
    for site in flow.sites:
        height = max((ahead[value] for value in _sequences(site, calls)), default=0) + (site in calls)
        ahead.update(dict.fromkeys(site.outputs, height))
    for site in reversed(flow.sites):
        height = max((behind[value] for value in site.outputs), default=0) + (site in calls)
        for value in _sequences(site, calls):
            behind[value] = max(behind[value], height)
    return {site: ahead[site.outputs[0]] + max(behind[value] for value in site.outputs) for site in calls}


def _sequences(site: CallSite, calls: set[CallSite]) -> tuple[Value, ...]:
    """What a call goes along: the first input of a recurrent layer, all that others take."""
    return tuple(site.inputs)[:1] if site in calls else tuple(site.inputs)
