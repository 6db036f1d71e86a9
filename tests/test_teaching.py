"""The lessons of docs/how_it_works/teaching.md hold, and a new pass needs nothing of the package but its primitives."""

import contextlib
import pathlib
import re
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers as L

from kerasbn.catalog import activations, linear, roles
from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Insert, ahead, apply, behind
from kerasbn.graph.model import LayerSpec, type_of
from kerasbn.passes.folding.transport import table
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.source.source import Source
from tests.helpers import inference, random_inputs, randomize, snapshot, wiring

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "how_it_works" / "teaching.md"
TABLES = (linear.LINEAR, activations.LAYERS, roles.LAYERS, table.LAYERS)


@pytest.fixture(scope="module")
def lessons():
    """What the page defines, its entries made for as long as the tests here last."""
    namespace = {"__name__": "lessons"}
    with contextlib.ExitStack() as stack:
        for entries in TABLES:
            stack.enter_context(mock.patch.dict(entries))
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
            exec(compile(block, str(PAGE), "exec"), namespace)
        yield namespace


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", PAGE.read_text(), re.MULTILINE))
def test_lesson(name, lessons):
    lessons[name]()


def double(facts, options, draft):
    """A pass: twice the inputs, and twice what goes into every sum."""
    for site in facts.graph.walk():
        if site.is_input:
            edges = [behind(site.address)]
        elif type_of(site.operation) is L.Add:
            edges = [ahead(site.address, index) for index in range(len(site.inputs))]
        else:
            continue
        for edge in edges:
            name = draft.names.fresh("double", beside=site.path)
            spec = LayerSpec(L.Rescaling, {"name": name, "scale": 2.0, "offset": 0.0})
            yield Edit(site.address, "insert", f"{name!r} doubles", (Insert(edge, spec),))


def rewritten(model, proposal):
    """What `kerasbn.rewrite` does with its own passes."""
    source = Source.of(model, copy=True)
    draft = Draft(source.graph)
    draft.add(proposal(Facts(source.graph), {}, draft))
    return source.build(apply(source.graph, draft.changes)).model


def test_a_pass_of_ones_own():
    inner_input = keras.Input((4,), name="inner_in")
    inner = keras.Model(inner_input, L.Add(name="inner_sum")([inner_input, inner_input]), name="inner")
    inputs = keras.Input((4,), name="in")
    x = L.Dense(4, name="a")(inputs)
    source = randomize(keras.Model(inputs, L.Add(name="sum")([x, inputs, inner(x)])))
    before = snapshot(source)
    result = rewritten(source, double)
    assert wiring(result) == {
        *("in>double", "double>a", "a>double_1", "double>double_2", "a>inner", "inner>double_3"),
        *("double_1>sum", "double_2>sum", "double_3>sum"),
    }
    assert wiring(result.get_layer("inner")) == {
        *("inner_in>double", "double>double_1", "double>double_2", "double_1>inner_sum", "double_2>inner_sum"),
    }
    data = random_inputs(source)
    hidden = keras.ops.convert_to_numpy(source.get_layer("a")(2 * data))
    expected = 2 * hidden + 4 * data + 2 * 2 * 2 * (2 * hidden)
    np.testing.assert_allclose(inference(result, data)[0], expected, rtol=1e-5)
    assert snapshot(source) == before
