"""What an ONNX file looks like from outside."""

import collections
import importlib.metadata
import logging
import os
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import tf2onnx
from keras import layers

import kerasbn
from kerasbn.exporters import onnx_file
from tests.exporters.cases import CASES, assert_serves
from tests.helpers import randomize

pytestmark = pytest.mark.tensorflow


def _exported(model, tmp_path, **options):
    kerasbn.export(model, tmp_path / "model.onnx", **options)
    return onnx.load(str(tmp_path / "model.onnx"))


def _shapes(values):
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def _constants(graph):
    """Every tensor that a graph holds, in the bodies of loops too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from _constants(attribute.g)


SHAPES = {
    "image classifier": {"x": ["batch", 8, 8, 4], "y": ["batch", 4]},
    "several inputs and outputs": {
        "image": ["batch", 8, 8, 3],
        "features": ["batch", 4],
        "label": ["batch", 3],
        "score": ["batch", 1],
    },
    "masked GRU, any length": {"tokens": ["batch", "tokens_1"], "scores": ["batch", 3]},
    "any size": {"x": ["batch", "x_1", "x_2", 3], "map": ["batch", "map_1", "map_2", 2], "pooled": ["batch", 4]},
    "fixed batch": {"x": [4, 6], "y": [4, 3]},
    "glu": {"x": ["batch", 8], "y": ["batch", 4]},
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case, tmp_path):
    proto = _exported(CASES[case][0](), tmp_path, verify=False)
    assert _shapes([*proto.graph.input, *proto.graph.output]) == SHAPES[case]


def _convolutions():
    inputs = keras.Input((16, 16, 32), name="x")
    convolution, dense = layers.Conv2D(32, 3, padding="same"), layers.Dense(32)
    x = dense(convolution(keras.ops.relu(dense(convolution(inputs)))))
    x = layers.BatchNormalization()(layers.Conv2DTranspose(32, 3)(layers.SeparableConv2D(32, 3)(x)))
    return keras.Model(inputs, layers.Conv2D(32, 3, groups=2, name="y")(x))


def _recurrent():
    inputs = keras.Input((4, 48), name="x")
    layer = layers.LSTM(48, return_sequences=True)
    return keras.Model(inputs, layers.Bidirectional(layers.GRU(48), name="y")(layer(layer(inputs))))


def _embedded():
    inputs = [keras.Input((5,), dtype="int32", name=name) for name in ("a", "b")]
    embedding = layers.Embedding(500, 32)
    return keras.Model(inputs, embedding(inputs[0]) + embedding(inputs[1]))


@pytest.mark.parametrize("build", [_convolutions, _recurrent, _embedded])
def test_each_weight_is_stored_once(build, tmp_path):
    model = randomize(build())
    proto = _exported(model, tmp_path, verify=False)
    copies = collections.Counter(
        onnx.numpy_helper.to_array(tensor).tobytes() for tensor in _constants(proto.graph) if np.prod(tensor.dims) > 8
    )
    assert set(copies.values()) == {1}
    parameters = 4 * model.count_params()
    assert parameters <= len(proto.SerializeToString()) < 1.1 * parameters + 40_000


@pytest.mark.parametrize("opset", range(13, 19))
def test_opsets(opset, tmp_path):
    model = CASES["attention"][0]()
    proto = _exported(model, tmp_path, opset=opset)
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == opset
    assert_serves(tmp_path / "model.onnx", model, ["x"], ["y"], batches=(2,))


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (_convolutions, "conv2d conv2d_transpose dense separable_conv2d y"),
        (_recurrent, "lstm/lstm_cell forward_gru/gru_cell backward_gru/gru_cell"),
        (_embedded, "embedding"),
    ],
)
def test_weights_are_called_as_their_variables(build, names, tmp_path):
    keras.utils.clear_session(free_memory=False)
    model = randomize(build())
    proto = _exported(model, tmp_path, verify=False)
    matrices = {variable.path for variable in model.variables if sum(size > 1 for size in variable.shape) > 1}
    assert matrices <= {tensor.name for tensor in proto.graph.initializer}
    assert all(any(f"{name}/" in path for path in matrices) for name in names.split())


def test_weights_do_not_pass_through_the_converter(tmp_path, monkeypatch):
    seen, optimize = [], tf2onnx.tfonnx.tf_optimize

    def recorded(inputs, outputs, graph_def):
        seen.append(graph_def.ByteSize())
        return optimize(inputs, outputs, graph_def)

    monkeypatch.setattr(tf2onnx.tfonnx, "tf_optimize", recorded)
    model = keras.Sequential([keras.Input((300,)), layers.Dense(1000), layers.Reshape((10, 100)), layers.LSTM(200)])
    report = kerasbn.export(randomize(model), tmp_path / "model.onnx")
    assert report.bytes > 4 * model.count_params()
    assert max(seen) < 100_000


def test_weights_that_one_file_cannot_hold_are_beside_it(tmp_path, monkeypatch):
    model, path, data = randomize(_convolutions()), tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    with monkeypatch.context() as patched:
        patched.setattr(onnx_file, "LARGEST", 1000)
        report = kerasbn.export(model, path)
    assert sorted(tmp_path.iterdir()) == [path, data]
    assert report.bytes == path.stat().st_size + data.stat().st_size
    assert path.stat().st_size < 20_000 < data.stat().st_size
    assert_serves(path, model, ["x"], ["y"])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (path, data):
        file.rename(moved / file.name)
    assert_serves(moved / path.name, model, ["x"], ["y"])

    kerasbn.export(model, moved / path.name, overwrite=True)
    assert list(moved.iterdir()) == [moved / path.name]


def _chain(shape, *chain):
    return keras.Sequential([keras.Input(shape, name="x"), *chain])


class _Scaled(layers.Layer):
    """Scales and shifts by constants."""

    def __init__(self, scale, shift):
        super().__init__()
        self.scale, self.shift = np.asarray(scale, "float32"), np.asarray(shift, "float32")

    def call(self, x):
        return x * self.scale + self.shift


def _shared():
    """A normalization of what two layers see, so that it cannot be folded."""
    inputs = keras.Input((8, 8, 3), name="x")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(inputs))
    return keras.Model(inputs, [layers.Conv2D(4, 3, padding="same")(x), layers.MaxPooling2D()(keras.ops.tanh(x))])


# A model, and how often which node is in the file.
NODES = {
    "behind an activation": (
        lambda: _chain(
            (8, 8, 3), layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D()
        ),
        {"BatchNormalization": 1, "Mul": 0, "Add": 0, "Transpose": 2},
    ),
    "used twice": (_shared, {"BatchNormalization": 1, "Mul": 0, "Add": 0}),
    "3D": (
        lambda: _chain((5, 5, 5, 2), layers.Conv3D(4, 3, activation="relu"), layers.BatchNormalization()),
        {"BatchNormalization": 1, "Mul": 0},
    ),
    "channels first": (
        lambda: _chain((3, 8, 8), layers.BatchNormalization(axis=1), layers.Activation("tanh")),
        {"BatchNormalization": 1, "Mul": 0, "Add": 0},
    ),
    "any scale and shift": (
        lambda: _chain((8, 8, 3), layers.Conv2D(2, 3, activation="relu"), _Scaled([2, 3], [4, 5]), layers.Conv2D(2, 3)),
        {"BatchNormalization": 1, "Mul": 0, "Add": 0},
    ),
    "one number for all channels": (
        lambda: _chain((8, 8, 3), layers.Conv2D(2, 3, activation="relu"), _Scaled(2, 3), layers.Conv2D(2, 3)),
        {"BatchNormalization": 0, "Mul": 1, "Add": 1},
    ),
    "along another axis": (
        lambda: _chain((8, 8, 3), layers.BatchNormalization(axis=2), layers.Activation("tanh")),
        {"BatchNormalization": 0, "Mul": 1, "Add": 1},
    ),
    "vectors": (
        lambda: _chain((6,), layers.Dense(4, "tanh"), layers.BatchNormalization(), layers.Activation("tanh")),
        {"BatchNormalization": 0, "Mul": 1, "Add": 2},
    ),
    "padded with zeros": (
        lambda: _chain((9, 9, 3), layers.ZeroPadding2D(((0, 1), (2, 1))), layers.Conv2D(4, 3, strides=2)),
        {"Pad": 0, "Conv": 1},
    ),
    "padded with zeros, depthwise": (
        lambda: _chain((9, 9, 3), layers.Conv2D(4, 3), layers.ZeroPadding2D(), layers.DepthwiseConv2D(3)),
        {"Pad": 0, "Conv": 2},
    ),
    "padded ahead of a maximum": (
        lambda: _chain((9, 9, 3), layers.ZeroPadding2D(), layers.MaxPooling2D()),
        {"Pad": 1},
    ),
}


@pytest.mark.parametrize("case", NODES)
def test_nodes(case, tmp_path):
    build, expected = NODES[case]
    model = randomize(build())
    proto = _exported(model, tmp_path)
    found = collections.Counter(node.op_type for node in proto.graph.node)
    assert {op_type: found[op_type] for op_type in expected} == expected
    outputs = [output.name for output in proto.graph.output]
    assert_serves(tmp_path / "model.onnx", model, ["x"], outputs)


TWICE = (
    *("image classifier", "masked GRU, any length", "attention", "1D convolutions"),
    pytest.param("LSTM with Dropout", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("case", TWICE)
def test_the_same_export_twice(case, tmp_path):
    model, path = CASES[case][0](), tmp_path / "model.onnx"
    contents = []
    for _ in range(2):
        kerasbn.export(model, path, verify=False, overwrite=True)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


_EXPORT = """
import sys, keras, kerasbn
kerasbn.export(keras.models.load_model(sys.argv[1]), sys.argv[2], verify=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", TWICE)
def test_the_same_export_in_two_processes(case, tmp_path):
    source = tmp_path / "source.keras"
    CASES[case][0]().save(source)
    paths = [tmp_path / f"{seed}.onnx" for seed in (1, 2)]
    for seed, path in enumerate(paths):
        command = [sys.executable, "-c", _EXPORT, str(source), str(path)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": str(seed)})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_the_file_says_of_itself(tmp_path):
    proto = _exported(CASES["dense, dropout"][0](), tmp_path, verify=False)
    assert (proto.producer_name, proto.producer_version) == ("kerasbn", importlib.metadata.version("kerasbn"))
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert (said["keras"], said["tensorflow"]) == (keras.__version__, tf.__version__)
    assert {"kerasbn", "tf2onnx"} < said.keys()


def test_tf2onnx_logs_nothing(tmp_path, capfd, monkeypatch):
    """It writes to the root logger, which would set up a handler of its own."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    inputs = keras.Input((4,), dtype="float64")
    _exported(keras.Model(inputs, inputs @ np.ones((4, 2)) + np.ones(2)), tmp_path)
    assert logging.getLogger().handlers == []
    assert "onnx" not in "".join(capfd.readouterr())
