"""Names for new layers."""

from __future__ import annotations

import keras

from kerasbn.graph.model import Graph


class Names:
    """Hands out names that no operation of a graph has yet."""

    def __init__(self, graph: Graph) -> None:
        self._taken = {site.operation.name for site in graph.sites}
        self._taken |= {value.spec.name for value in keras.tree.flatten(graph.inputs)}

    def fresh(self, wanted: str) -> str:
        """The name wanted, with a number behind it if it is taken: `"conv2_bn"`, `"conv2_bn_1"`."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name
