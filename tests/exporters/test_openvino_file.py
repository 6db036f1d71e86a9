"""What is OpenVINO's own in its files. That they compute what the model does: test_export.py."""

import sys

import keras
import numpy as np
import openvino
import pytest
import tensorflow as tf
from keras import layers

import kerasbn
from kerasbn import ModelFileError, OptionError, UnsupportedModelError
from tests.exporters.cases import CASES, FORMATS, assert_close, named, run_openvino
from tests.helpers import inference, randomize

pytestmark = pytest.mark.tensorflow


def _model():
    inputs = keras.Input((6,), name="x")
    x = layers.BatchNormalization()(layers.Dense(256, activation="relu")(inputs))
    return randomize(keras.Model(inputs, layers.Dense(64, name="y")(x)))


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_files_that_come_and_go_together(tmp_path):
    report = kerasbn.export(_model(), tmp_path / "model.xml")
    assert _names(tmp_path) == ["model.bin", "model.xml"]
    assert report.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    with pytest.raises(ModelFileError, match=r"model\.xml' exists already"):
        kerasbn.export(_model(), tmp_path / "model.xml")
    (tmp_path / "model.xml").unlink()
    with pytest.raises(ModelFileError, match=r"model\.bin' exists already"):
        kerasbn.export(_model(), tmp_path / "model.xml")
    other = CASES["dense, dropout"][0]()
    kerasbn.export(other, tmp_path / "model.xml", overwrite=True)
    inputs, by_name = named(other, ["x"], 3)
    assert_close({"y": inference(other, inputs)[0]}, run_openvino(tmp_path / "model.xml", by_name))


@pytest.mark.parametrize(
    ("case", "inputs", "outputs"),
    [
        ("any size", {"x": "[?,?,?,3]"}, ["map", "pooled"]),
        ("fixed batch", {"x": "[4,6]"}, ["y"]),
        ("input among the outputs", {"x": "[?,6]"}, ["x_1", "y", "y_1"]),
        ("names like numbered ones", {"x": "[?,4]"}, ["x_1", "y", "y_1", "y_2"]),
    ],
)
def test_each_input_and_output_has_its_name_alone(case, inputs, outputs, tmp_path):
    kerasbn.export(CASES[case][0](), tmp_path / "model.xml")
    graph = openvino.Core().read_model(tmp_path / "model.xml")
    assert [each.get_names() for each in graph.inputs] == [{name} for name in inputs]
    assert [str(each.get_partial_shape()) for each in graph.inputs] == list(inputs.values())
    assert sorted(next(iter(each.get_names())) for each in graph.outputs) == outputs
    assert all(len(each.get_names()) == 1 for each in graph.outputs)


def test_weights_of_half_the_size(tmp_path):
    model = _model()
    whole = kerasbn.export(model, tmp_path / "whole.xml")
    half = kerasbn.export(model, tmp_path / "half.xml", quantize="float16")
    assert half.bytes <= 0.65 * whole.bytes
    assert whole.max_error <= 1e-6 < half.max_error <= 0.01
    inputs, by_name = named(model, ["x"], 5)
    assert_close({"y": inference(model, inputs)[0]}, run_openvino(tmp_path / "half.xml", by_name), tolerance=0.01)


class _Values(layers.Layer):
    def call(self, inputs):
        return tf.linalg.svd(inputs)[0]


def test_an_operation_that_it_does_not_know(tmp_path):
    model = keras.Sequential([keras.Input((4, 4)), _Values()])
    with pytest.raises(UnsupportedModelError, match="Svd"):
        kerasbn.export(model, tmp_path / "model.xml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantize", ["int8", "int8_dynamic"])
def test_no_int8(quantize, tmp_path):
    with pytest.raises(OptionError, match="formats 'onnx', 'litert'; the format is 'openvino'"):
        kerasbn.export(_model(), tmp_path / "model.xml", quantize=quantize, data=np.ones((4, 6)))


@pytest.mark.parametrize("verify", [True, False])
def test_without_openvino(verify, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OptionError, match=r"kerasbn\[openvino\]"):
        kerasbn.export(_model(), tmp_path / "model.xml", verify=verify)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["image classifier", "gelu, celu", "any size", "attention"])
@pytest.mark.parametrize("kind", ["onnx", "saved_model"])
def test_an_independent_reader_of_other_formats(kind, case, tmp_path):
    """ONNX files and SavedModels, read by who did not write them; of a SavedModel OpenVINO sees no names of outputs."""
    build, input_names, _ = CASES[case]
    model, path = build(), tmp_path / FORMATS[kind]
    kerasbn.export(model, path, verify=False)
    inputs, by_name = named(model, [input_names], 3)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = sorted(compiled(by_name).values(), key=np.ndim)
    expected = sorted(inference(model, inputs), key=np.ndim)
    assert_close(dict(enumerate(expected)), dict(enumerate(got)))


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_layers_that_keras_quantized_are_refused(mode, tmp_path):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, name="culprit")])
    model.quantize(mode)
    with pytest.raises(UnsupportedModelError, match=f"'culprit' is quantized to {mode}"):
        kerasbn.export(model, tmp_path / "model.xml")
    assert not list(tmp_path.iterdir())
