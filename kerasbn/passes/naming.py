"""Names for new layers."""

from __future__ import annotations

from collections import defaultdict

import keras

from kerasbn.graph.model import Graph


class Names:
    """Hands out names that no operation of the same model has yet."""

    def __init__(self, graph: Graph) -> None:
        self._taken: dict[str, set[str]] = defaultdict(set)
        self._taken[""] = {value.spec.name for value in keras.tree.flatten(graph.inputs)}
        for site in graph.walk():
            parent, _, name = site.path.rpartition("/")
            self._taken[parent].add(name)
            if isinstance(site.operation, Graph):
                inputs = keras.tree.flatten(site.operation.inputs)
                self._taken[site.path].update(value.spec.name for value in inputs)

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
