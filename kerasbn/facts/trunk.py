"""The trunk of pre-activation networks (He et al., 2016; DenseNet): sums and concatenations in a row.

What one of them yields goes on to the next as it is, and through an activation into the layers of
the next block, never into a layer without. In the networks that activate behind the sum, the next
sum takes the activated value.
"""

from __future__ import annotations

from kerasbn.catalog.roles import Role
from kerasbn.facts.flow import Flow
from kerasbn.graph.model import CallSite, type_of


class Trunk:
    """The merging sites of a network's trunk, if it has one, and what it feeds.

    Attributes:
        pre_activations: The activations right behind a merging site of the trunk.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._sites = frozenset(site for group in _connected_merges(flow) if _is_trunk(flow, group) for site in group)
        self.pre_activations = frozenset(
            user for site in self._sites for user in flow.next_sites(site) if flow.role(user) is Role.ACTIVATION
        )

    def is_joined_by(self, site: CallSite) -> bool:
        """Whether a site's value goes nowhere but into the trunk."""
        behind = self._flow.next_sites(site)
        return bool(behind) and all(user in self._sites for user in behind)


def _is_trunk(flow: Flow, group: set[CallSite]) -> bool:
    behind = [[flow.role(user) for user in flow.next_sites(site)] for site in group]
    return (
        any(Role.ACTIVATION in roles and Role.MERGE in roles for roles in behind)
        and not any(Role.LINEAR in roles for roles in behind)
        and len({type_of(site.operation) for site in group}) == 1
    )


def _connected_merges(flow: Flow) -> list[set[CallSite]]:
    """The merging sites, grouped by which feed one another without anything but pooling in between."""
    groups: dict[CallSite, set[CallSite]] = {}
    for site in flow.sites:
        if flow.role(site) is Role.MERGE:
            group = groups.setdefault(site, {site})
            for user in flow.next_sites(site):
                if flow.role(user) is Role.MERGE:
                    group |= groups.get(user, {user})
                    groups.update(dict.fromkeys(group, group))
    return list({id(group): group for group in groups.values()}.values())
