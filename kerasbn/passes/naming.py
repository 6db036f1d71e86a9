"""Names for new layers."""

from __future__ import annotations

from collections import defaultdict

from kerasbn.graph.model import Graph


class Names:
    """Hands out names that no operation of the same model has yet."""

    def __init__(self, graph: Graph) -> None:
        self._taken: dict[str, set[str]] = defaultdict(set)
        for site in graph.walk():
            parent, _, name = site.path.rpartition("/")
            self._taken[parent].add(name)

    def fresh(self, wanted: str, *, beside: str) -> str:
        """A name for a layer that goes into the model of the layer with the path `beside`.

        It is the name wanted, with a number behind it if that is taken: `"conv2_bn_1"`.
        """
        taken = self._taken[beside.rpartition("/")[0]]
        name, number = wanted, 0
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        return name
