"""Folders as model servers want them."""

import keras
import pytest
import tensorflow as tf
from keras import layers
from tensorflow_serving.apis import prediction_log_pb2

import kerasbn
from kerasbn import OptionError
from tests.exporters.cases import CASES, assert_serves, names_of
from tests.helpers import randomize

pytestmark = pytest.mark.tensorflow


def _files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", ["several inputs and outputs", "dictionaries", "masked LSTM"])
def test_tf_serving(case, tmp_path):
    build, inputs, outputs = CASES[case]
    model = build()
    report = kerasbn.export(model, tmp_path / "served", layout="tf_serving")
    assert (report.path, report.format) == (tmp_path / "served", "saved_model")
    assert [path.name for path in (tmp_path / "served").iterdir()] == ["1"]
    assert_serves(tmp_path / "served" / "1", model, names_of(inputs), names_of(outputs))


def test_requests_to_warm_up_with(tmp_path):
    model = CASES["several inputs and outputs"][0]()
    kerasbn.export(model, tmp_path / "served", layout="tf_serving", warmup=True, verify=False)
    signature = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures["serving_default"]
    (records,) = (tmp_path / "served" / "1" / "assets.extra").iterdir()
    assert records.name == "tf_serving_warmup_requests"
    batches = []
    for record in tf.data.TFRecordDataset(str(records)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        signature(**inputs)
        batches += [len(array) for array in inputs.values()]
    assert batches == [1, 1, 3, 3]


def _every_type():
    inputs = {
        "flag": keras.Input((2,), dtype="bool", name="flag"),
        "image": keras.Input((None, 8, 3), dtype="uint8", name="image"),
        "number": keras.Input((), dtype="int64", name="number"),
    }
    flag, image, number = (keras.ops.cast(each, "float32") for each in inputs.values())
    score = layers.Dense(2, name="score")(flag) + keras.ops.sum(image, (1, 2, 3))[:, None] + number[:, None]
    return randomize(keras.Model(inputs, {"score": score}))


# A model, the format, the files, and lines of the configuration.
TRITON = {
    "ONNX": (
        *(CASES["several inputs and outputs"][0], None, {"config.pbtxt", "1/model.onnx"}),
        """
        platform: "onnxruntime_onnx"
        max_batch_size: 64
        input [
          { name: "image", data_type: TYPE_FP32, dims: [ 8, 8, 3 ] },
          { name: "features", data_type: TYPE_FP32, dims: [ 4 ] }
        ]
        output [
          { name: "label", data_type: TYPE_FP32, dims: [ 3 ] },
          { name: "score", data_type: TYPE_FP32, dims: [ 1 ] }
        ]
        dynamic_batching { }
        """,
    ),
    "a fixed batch": (
        *(CASES["fixed batch"][0], "onnx", {"config.pbtxt", "1/model.onnx"}),
        """
        platform: "onnxruntime_onnx"
        max_batch_size: 0
        input [
          { name: "x", data_type: TYPE_FP32, dims: [ 4, 6 ] }
        ]
        output [
          { name: "y", data_type: TYPE_FP32, dims: [ 4, 3 ] }
        ]
        """,
    ),
    "SavedModel of all types": (
        *(_every_type, "saved_model", {"config.pbtxt", "1/model.savedmodel/saved_model.pb"}),
        """
        platform: "tensorflow_savedmodel"
        max_batch_size: 64
        input [
          { name: "flag", data_type: TYPE_BOOL, dims: [ 2 ] },
          { name: "image", data_type: TYPE_UINT8, dims: [ -1, 8, 3 ] },
          { name: "number", data_type: TYPE_INT64, dims: [ 1 ], reshape { shape: [ ] } }
        ]
        output [
          { name: "score", data_type: TYPE_FP32, dims: [ 2 ] }
        ]
        dynamic_batching { }
        """,
    ),
}


@pytest.mark.parametrize("case", TRITON)
def test_triton(case, tmp_path):
    build, kind, files, config = TRITON[case]
    report = kerasbn.export(build(), tmp_path / "served", layout="triton", format=kind)
    assert report.max_error <= 1e-4
    assert files <= _files(tmp_path / "served")
    written = (tmp_path / "served" / "config.pbtxt").read_text().splitlines()
    assert [line.strip() for line in written] == [line.strip() for line in config.strip().splitlines()]


@pytest.mark.parametrize("layout", ["tf_serving", "triton"])
def test_an_old_one_is_replaced_as_a_whole(layout, tmp_path):
    model, path = CASES["dense, dropout"][0](), tmp_path / "served"
    kerasbn.export(model, path, layout=layout)
    before = _files(path)
    with pytest.raises(kerasbn.ModelFileError, match="exists already"):
        kerasbn.export(model, path, layout=layout)
    kerasbn.export(model, path, layout=layout, overwrite=True)
    assert _files(path) == before
    (path / "2").mkdir()
    (path / "2" / "precious").touch()
    with pytest.raises(kerasbn.ModelFileError, match="something other"):
        kerasbn.export(model, path, layout=layout, overwrite=True)
    assert (path / "2" / "precious").is_file()


def test_what_lies_beside_the_folder_stays(tmp_path):
    """`served.data` is no weights of `served`, as `model.onnx.data` is of `model.onnx`."""
    beside = tmp_path / "served.data"
    beside.write_text("precious")
    for overwrite in (False, True):
        kerasbn.export(CASES["dense, dropout"][0](), tmp_path / "served", layout="triton", overwrite=overwrite)
        assert beside.read_text() == "precious"


# Arguments that are refused, and what the message says.
REFUSED = {
    "unknown": ({"layout": "bento"}, "'tf_serving' or 'triton'"),
    "another format": ({"layout": "tf_serving", "format": "onnx"}, "takes the format 'saved_model'"),
    "warming up elsewhere": ({"layout": "triton", "warmup": True}, "layout='tf_serving'"),
    "warming up a file": ({"warmup": True}, "layout='tf_serving'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    options, message = REFUSED[case]
    with pytest.raises(OptionError, match=message):
        kerasbn.export(CASES["dense, dropout"][0](), tmp_path / "served", **options)
    assert not list(tmp_path.iterdir())


def test_warming_up_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'kerasbn\[serving\]'"):
        kerasbn.export(CASES["dense, dropout"][0](), tmp_path / "served", layout="tf_serving", warmup=True)


def test_a_session_of_tensorflow_1_reads_it(tmp_path):
    """As TensorFlow Serving does: the graph by its tag, the tensors by the signature, no Python of the writer."""
    build, (name,), (output,) = CASES["image classifier"][0], ["x"], ["y"]
    model = build()
    kerasbn.export(model, tmp_path / "model")
    x = keras.random.normal((2, 8, 8, 4), seed=0).numpy()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "model")).signature_def
        ports = signature["serving_default"]
        got = session.run(ports.outputs[output].name, {ports.inputs[name].name: x})
    assert abs(got - model(x, training=False).numpy()).max() <= 1e-6
