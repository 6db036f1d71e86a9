"""Edits of graphs, without building anything."""

import keras
import pytest
from keras import layers as L

from kerasbn.graph.edit import Configure, Insert, Remove, Replace, ahead, apply, behind
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
        site.address: [graph.producers[value].address for value in site.inputs]
        for site in graph.sites
        if not site.is_input
    }


def _outputs(graph):
    return [graph.producers[value].address for value in keras.tree.flatten(graph.outputs)]


def test_read():
    graph = _graph()
    assert _sites(graph) == {"a#0": ["in"], "d#0": ["a#0"], "a#1": ["d#0"]}
    assert _outputs(graph) == ["a#1", "d#0"]


F, G = _spec("f"), _spec("g")

CASES = {
    "insert": (
        [Insert(behind("a#0"), F)],
        {"a#0": ["in"], "f#0": ["a#0"], "d#0": ["f#0"], "a#1": ["d#0"]},
        ["a#1", "d#0"],
    ),
    "insert behind an input": (
        [Insert(behind("in"), F)],
        {"f#0": ["in"], "a#0": ["f#0"], "d#0": ["a#0"], "a#1": ["d#0"]},
        ["a#1", "d#0"],
    ),
    "insert at an output": (
        [Insert(behind("d#0"), F)],
        {"a#0": ["in"], "d#0": ["a#0"], "f#0": ["d#0"], "a#1": ["f#0"]},
        ["a#1", "f#0"],
    ),
    "one layer at two sites": (
        [Insert(behind("a#0"), F), Insert(behind("a#1"), F)],
        {"a#0": ["in"], "f#0": ["a#0"], "d#0": ["f#0"], "a#1": ["d#0"], "f#1": ["a#1"]},
        ["f#1", "d#0"],
    ),
    "two at one site, the last nearest": (
        [Insert(behind("a#0"), F), Insert(behind("a#0"), G)],
        {"a#0": ["in"], "g#0": ["a#0"], "f#0": ["g#0"], "d#0": ["f#0"], "a#1": ["d#0"]},
        ["a#1", "d#0"],
    ),
    "insert ahead": (
        [Insert(ahead("a#1"), F)],
        {"a#0": ["in"], "d#0": ["a#0"], "f#0": ["d#0"], "a#1": ["f#0"]},
        ["a#1", "d#0"],
    ),
    "remove": ([Remove("d#0")], {"a#0": ["in"], "a#1": ["a#0"]}, ["a#1", "a#0"]),
    "remove and insert": (
        [Remove("d#0"), Insert(behind("a#0"), F)],
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
    edited = apply(graph, [Replace(graph.by_address["a#0"].operation, F)])
    assert [site.operation is F for site in edited.sites] == [False, True, False, True]
    assert _sites(edited) == _sites(graph)


def test_insert_ahead_of_one_input_of_several():
    inputs = keras.Input((4,), name="in")
    graph = read(keras.Model(inputs, L.Add(name="sum")([inputs, L.Dense(4, name="a")(inputs), inputs])))
    edited = apply(graph, [Insert(ahead("sum#0", 2), F), Insert(ahead("sum#0", 2), G)])
    assert _sites(edited) == {"a#0": ["in"], "f#0": ["in"], "g#0": ["f#0"], "sum#0": ["in", "a#0", "g#0"]}


def test_insert_behind_an_input_that_is_an_output():
    inputs = keras.Input((4,), name="in")
    graph = read(keras.Model(inputs, [L.Dense(4, name="a")(inputs), inputs]))
    edited = apply(graph, [Insert(behind("in"), F)])
    assert _sites(edited) == {"f#0": ["in"], "a#0": ["f#0"]}
    assert _outputs(edited) == ["a#0", "in"]


def test_configure_adds_up_and_changes_what_replaces():
    graph = _graph()
    layer = graph.by_address["a#0"].operation
    changes = [Configure(layer, {"activation": "relu"}), Configure(layer, {"use_bias": False})]
    config = apply(graph, changes).by_address["a#1"].operation.config
    assert (config["activation"], config["use_bias"], config["units"]) == ("relu", False, 4)
    other = LayerSpec(L.Dense, {"name": "other", "units": 4})
    replaced = apply(graph, [*changes, Replace(layer, other)]).by_address["a#1"].operation
    assert dict(replaced.config) == {"name": "other", "units": 4, "activation": "relu", "use_bias": False}


def test_edits_that_would_be_lost():
    with pytest.raises(AssertionError, match="no input 3"):
        apply(_graph(), [Insert(ahead("d#0", 3), F)])
    with pytest.raises(AssertionError, match="d#0 is removed"):
        apply(_graph(), [Remove("d#0"), Insert(behind("d#0"), F)])


def test_an_edit_of_a_site_that_is_not_there():
    with pytest.raises(AssertionError, match="z#0"):
        apply(_graph(), [Remove("z#0")])
