"""Edits of graphs, without building anything."""

import keras
import pytest
from keras import layers as L

from kerasbn.graph.edit import Insert, InsertAhead, Remove, Replace, apply
from kerasbn.graph.model import LayerSpec
from kerasbn.graph.read import read


def _graph():
    inputs = keras.Input((4,), name="in")
    shared = L.Dense(4, name="a")
    x = L.Dropout(0.5, name="d")(shared(inputs))
    return read(keras.Model(inputs, [shared(x), x]))


def _spec(name):
    return LayerSpec(L.Activation, {"name": name, "activation": "relu"})


def _sites(graph):
    """Each call site with the sites that its inputs come from."""
    return {
        site.address: [graph.producers[value].address if value in graph.producers else "in" for value in site.inputs]
        for site in graph.sites
    }


def _outputs(graph):
    return [graph.producers[value].address for value in keras.tree.flatten(graph.outputs)]


def test_read():
    graph = _graph()
    assert _sites(graph) == {"a#0": ["in"], "d#0": ["a#0"], "a#1": ["d#0"]}
    assert _outputs(graph) == ["a#1", "d#0"]


F, G = _spec("f"), _spec("g")

CASES = {
    "insert": ([Insert("a#0", F)], {"a#0": ["in"], "f#0": ["a#0"], "d#0": ["f#0"], "a#1": ["d#0"]}, ["a#1", "d#0"]),
    "insert at an output": (
        [Insert("d#0", F)],
        {"a#0": ["in"], "d#0": ["a#0"], "f#0": ["d#0"], "a#1": ["f#0"]},
        ["a#1", "f#0"],
    ),
    "one layer at two sites": (
        [Insert("a#0", F), Insert("a#1", F)],
        {"a#0": ["in"], "f#0": ["a#0"], "d#0": ["f#0"], "a#1": ["d#0"], "f#1": ["a#1"]},
        ["f#1", "d#0"],
    ),
    "two at one site, the last nearest": (
        [Insert("a#0", F), Insert("a#0", G)],
        {"a#0": ["in"], "g#0": ["a#0"], "f#0": ["g#0"], "d#0": ["f#0"], "a#1": ["d#0"]},
        ["a#1", "d#0"],
    ),
    "insert ahead": (
        [InsertAhead("a#1", F)],
        {"a#0": ["in"], "d#0": ["a#0"], "f#0": ["d#0"], "a#1": ["f#0"]},
        ["a#1", "d#0"],
    ),
    "remove": ([Remove("d#0")], {"a#0": ["in"], "a#1": ["a#0"]}, ["a#1", "a#0"]),
    "remove and insert": (
        [Remove("d#0"), Insert("a#0", F)],
        {"a#0": ["in"], "f#0": ["a#0"], "a#1": ["f#0"]},
        ["a#1", "f#0"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_changes(case):
    changes, sites, outputs = CASES[case]
    graph = _graph()
    before = _sites(graph)
    edited = apply(graph, changes)
    assert _sites(edited) == sites
    assert _outputs(edited) == outputs
    assert _sites(graph) == before


def test_replace_reaches_every_call():
    graph = _graph()
    edited = apply(graph, [Replace(graph.sites[0].operation, F)])
    assert [site.operation is F for site in edited.sites] == [True, False, True]
    assert _sites(edited) == _sites(graph)


def test_an_edit_of_a_site_that_is_not_there():
    with pytest.raises(AssertionError, match="z#0"):
        apply(_graph(), [Remove("z#0")])
