"""What a SavedModel looks like from outside."""

import logging

import keras
import pytest
from keras import layers
from tensorflow.python.saved_model import loader_impl

import kerasbn
from tests.exporters.cases import CASES, names_of
from tests.helpers import randomize

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("case", ["several inputs and outputs", "dictionaries", "fixed batch", "odd names"])
def test_the_signature_has_the_names_of_the_model(case, tmp_path):
    build, inputs, outputs = CASES[case]
    kerasbn.export(build(), tmp_path / "model", verify=False)
    (graph,) = loader_impl.parse_saved_model(str(tmp_path / "model")).meta_graphs
    signature = graph.signature_def["serving_default"]
    assert sorted(signature.inputs) == sorted(names_of(inputs))
    assert sorted(signature.outputs) == sorted(names_of(outputs))


def test_each_weight_is_stored_once(tmp_path):
    inputs = keras.Input((16, 16, 32), name="x")
    convolution = layers.Conv2D(64, 3, padding="same")
    x = layers.Conv2D(32, 3)(convolution(layers.Conv2D(32, 1)(convolution(inputs))))
    model = randomize(keras.Model(inputs, layers.Dense(256, name="y")(layers.Flatten()(x))))
    parameters = 4 * model.count_params()
    for frozen in (False, True):
        report = kerasbn.export(model, tmp_path / "model", verify=False, frozen=frozen, overwrite=True)
        assert parameters <= report.bytes < parameters + 100_000
        stored = sum(file.stat().st_size for file in (tmp_path / "model" / "variables").iterdir())
        assert stored < 1_000 if frozen else stored >= parameters


def test_nothing_is_logged(tmp_path, caplog):
    """In a notebook TensorFlow writes to stdout what it logs."""
    with caplog.at_level(logging.INFO, "tensorflow"):
        kerasbn.export(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), tmp_path / "model")
    assert caplog.records == []
