"""Files with smaller numbers: what they compute, how large they are, and when they are not made."""

import functools
import itertools
import tempfile
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers

import kerasbn
from kerasbn import OptionError, UnsupportedModelError, VerificationError
from kerasbn.exporters import litert_file, onnx_file, onnx_quantization
from tests.exporters.cases import CASES, FORMATS, RUNNERS
from tests.helpers import inference, random_inputs, randomize

pytestmark = pytest.mark.tensorflow

KINDS = ("onnx", "litert")


def _convolutions():
    x = inputs = keras.Input((8, 8, 3), name="x")
    for width in (32, 48):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(x)))
    x = layers.Dense(10, name="y")(layers.GlobalAveragePooling2D()(x))
    return randomize(keras.Model(inputs, x))


def _products():
    inputs = keras.Input((7, 16), name="x")
    x = layers.Dense(128, activation="relu")(layers.Dense(64, activation="relu")(inputs))
    return randomize(keras.Model(inputs, layers.Dense(5, name="y")(layers.Flatten()(x))))


def _recurrent():
    inputs = keras.Input((7, 16), name="x")
    return randomize(keras.Model(inputs, layers.Dense(5, name="y")(layers.LSTM(64)(inputs))))


MODELS = {"convolutions": _convolutions, "products": _products, "recurrent": _recurrent}

# The quantization, how large the file is at most relative to one in float32, and the difference that it makes.
QUANTIZED = {"float16": (0.65, 0.01), "int8_dynamic": (0.55, 0.05), "int8": (0.55, 0.05)}
CASES_QUANTIZED = [
    case
    for case in itertools.product(MODELS, KINDS, QUANTIZED)
    if case not in (("convolutions", "onnx", "int8_dynamic"), ("recurrent", "onnx", "int8"))  # refused; left in float32
]


@functools.cache
def _not_quantized(model, kind):
    with tempfile.TemporaryDirectory() as folder:
        return kerasbn.export(MODELS[model](), Path(folder) / FORMATS[kind], verify=False)


@pytest.mark.parametrize(("model", "kind", "quantize"), CASES_QUANTIZED)
def test_it_is_smaller_and_close(model, kind, quantize, tmp_path):
    size, error = QUANTIZED[quantize]
    whole = _not_quantized(model, kind)
    model = MODELS[model]()
    data = random_inputs(model, 40)
    report = kerasbn.export(model, tmp_path / FORMATS[kind], quantize=quantize, data=data)
    assert (report.quantize, whole.quantize) == (quantize, None)
    assert report.bytes <= size * whole.bytes
    assert 0 < report.max_error <= error
    for batch in (1, 5):
        (expected,) = inference(model, data[:batch])
        got = RUNNERS[kind](tmp_path / FORMATS[kind], {"x": data[:batch]})
        assert {name: (array.shape, array.dtype) for name, array in got.items()} == {"y": (expected.shape, "float32")}
        assert np.max(np.abs(got["y"] - expected)) <= 2 * error * np.max(np.abs(expected))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["several inputs and outputs", "explicit mask", "images of bytes", "fixed batch"])
def test_inputs_of_all_kinds(case, kind, tmp_path):
    model = CASES[case][0]()
    data = random_inputs(model, 8)
    assert kerasbn.export(model, tmp_path / FORMATS[kind], quantize="int8", data=data).max_error <= 0.05


GIVEN = {
    "arrays": lambda x: {"data": x},
    "a dataset": lambda x: {"data": tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x)))).batch(8)},
    "a generator": lambda x: {"data": (each for each in np.split(x, 5))},
    "inputs": lambda x: {"inputs": x},
    "both": lambda x: {"data": x, "inputs": x[:3]},
    "inputs by other names": lambda x: {"inputs": {"image": x}, "names": {"x": "image"}},
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_ranges_are_measured_on(case, tmp_path):
    model = _convolutions()
    x = random_inputs(model, 40)
    assert kerasbn.export(model, tmp_path / "model.onnx", quantize="int8", **GIVEN[case](x)).max_error <= 0.05


def test_ranges_are_those_of_the_data(tmp_path):
    model = _convolutions()
    scales = {}
    for factor in (1, 100):
        data = factor * random_inputs(model, 40)
        kerasbn.export(model, tmp_path / "model.onnx", quantize="int8", data=data, overwrite=True)
        graph = onnx.load(tmp_path / "model.onnx").graph
        scale = next(node.input[1] for node in graph.node if node.op_type == "QuantizeLinear")  # of the input
        scales[factor] = next(onnx.numpy_helper.to_array(each) for each in graph.initializer if each.name == scale)
    np.testing.assert_allclose(scales[100], 100 * scales[1], rtol=1e-3)


def test_small_probabilities_are_not_lost(tmp_path):
    """What 8 bits make of a softmax over many classes is 0."""
    inputs = keras.Input((16,), name="x")
    model = keras.Model(inputs, layers.Dense(1000, activation="softmax", name="y")(inputs))
    data = random_inputs(model, 40)
    kerasbn.export(model, tmp_path / "model.onnx", quantize="int8", data=data)
    got = RUNNERS["onnx"](tmp_path / "model.onnx", {"x": data})["y"]
    assert np.min(got) > 0
    with pytest.raises(VerificationError, match="root mean square"):
        kerasbn.export(model, tmp_path / "model.tflite", quantize="int8", data=data)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


# The file, the options, and parts of the message.
REFUSED = {
    "no such form": ("model.onnx", {"quantize": "int4"}, OptionError, "'int4'; it must be None or one of 'float16'"),
    "of a SavedModel": ("model", {"quantize": "float16"}, OptionError, "formats 'onnx', 'litert', 'openvino'"),
    "of a Keras file": ("model.keras", {"quantize": "float16"}, OptionError, "the format is 'keras'"),
    "int8 without data": ("model.onnx", {"quantize": "int8"}, OptionError, "pass data="),
    "data for nothing": ("model.onnx", {"data": np.ones((1, 8, 8, 3))}, OptionError, "Option data is for quantize"),
    "data that does not fit": (
        "model.onnx",
        {"quantize": "int8", "data": np.ones((1, 9))},
        OptionError,
        "does not fit",
    ),
    "convolutions": (
        "model.onnx",
        {"quantize": "int8_dynamic"},
        UnsupportedModelError,
        "2 convolutions .* quantize='int8',",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    path, options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        kerasbn.export(_convolutions(), tmp_path / path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_too_far_off_is_not_kept(kind, tmp_path, monkeypatch):
    model, other = _products(), _products()
    randomize(other, seed=1)
    module = {"onnx": onnx_quantization, "litert": litert_file}[kind]
    right = module.quantize
    monkeypatch.setattr(module, "quantize", lambda model, *rest: right(other, *rest))
    if kind == "onnx":
        monkeypatch.setattr(module, "quantize", lambda model, interface, path, *rest: _ones(path))
    with pytest.raises(VerificationError, match="root mean square"):
        kerasbn.export(model, tmp_path / FORMATS[kind], quantize="float16")
    assert not list(tmp_path.iterdir())


def _ones(path):
    """Let all weights of an ONNX file be 1."""
    model = onnx.load(path)
    for each in model.graph.initializer:
        array = onnx.numpy_helper.to_array(each)
        if array.dtype == np.float32:
            each.CopyFrom(onnx.numpy_helper.from_array(np.ones_like(array), each.name))
    onnx.save(model, path)
    return 1


def test_the_file_in_float32_is_verified_first(tmp_path, monkeypatch):
    """Else smaller numbers would hide what is wrong with it."""
    right = onnx_file.runner

    def wrong(*arguments):
        run = right(*arguments)
        return lambda inputs: {name: 1.001 * array for name, array in run(inputs).items()}

    monkeypatch.setattr(onnx_file, "runner", wrong)
    with pytest.raises(VerificationError, match=r"0\.0001 of that"):
        kerasbn.export(_products(), tmp_path / "model.onnx", quantize="float16")
