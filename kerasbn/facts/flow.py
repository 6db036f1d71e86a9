"""How values flow through a network: its call sites with the graphs inside written out, and their roles."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Set

from kerasbn.catalog.roles import PER_CHANNEL, Role, role_of
from kerasbn.graph.model import CallSite, Graph, Value


class Flow:
    """The flat form of a graph, with the role of each site.

    Attributes:
        sites: The call sites in the order in which they run.
        outputs: The values that are outputs of the model.
    """

    def __init__(self, graph: Graph) -> None:
        flat = graph.flat
        self.sites = flat.sites
        self.outputs = flat.output_values
        self._producers = flat.producers
        self._users = flat.consumers
        self._roles: Mapping[CallSite, Role] = {site: role_of(site.operation) for site in flat.sites}

    def role(self, site: CallSite) -> Role:
        """The role of the operation that is called."""
        return self._roles[site]

    def producer(self, value: Value) -> CallSite | None:
        """The call site that yields a value; `None` for an optional input that was not passed."""
        return self._producers.get(value)

    def users(self, value: Value) -> tuple[CallSite, ...]:
        """The call sites that use a value."""
        return self._users[value]

    def next_sites(self, site: CallSite) -> tuple[CallSite, ...]:
        """The first sites behind a site that do more than pool or rearrange its values."""
        found: dict[CallSite, None] = {}
        queue = deque(site.outputs)
        while queue:
            for user in self.users(queue.popleft()):
                if self.role(user) in PER_CHANNEL:
                    queue.extend(user.outputs)
                else:
                    found[user] = None
        return tuple(found)

    def behind(self, sources: Set[Role], *, through: Set[Role]) -> set[Value]:
        """What sites of some roles yield, and what becomes of it under other roles."""
        found: set[Value] = set()
        for site in self.sites:
            role = self.role(site)
            if role in sources or (role in through and not found.isdisjoint(site.inputs)):
                found.update(site.outputs)
        return found
