"""The names, shapes and types that a file is served with, and that each of them holds."""

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from keras import layers

import kerasbn
from kerasbn import OptionError, UnsupportedModelError
from kerasbn.verification.interface import interface_of
from kerasbn.verification.samples import settled
from tests.exporters.cases import CASES, FORMATS, assert_close, run_onnx, run_saved_model
from tests.helpers import inference, random_inputs, randomize

pytestmark = pytest.mark.tensorflow

RUN = {"onnx": run_onnx, "saved_model": run_saved_model}


class CutTable(layers.Layer):
    """Adds a table of positions that was cut to one length; for Keras the length stays open."""

    def __init__(self, length=16, **kwargs):
        super().__init__(**kwargs)
        self.length = length

    def build(self, shape):
        self.table = self.add_weight(shape=(self.length, shape[-1]), initializer="normal")

    def call(self, x):
        return x + self.table

    def compute_output_shape(self, shape):
        return shape


def _tokens(layer=None):
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 6)(inputs)
    return randomize(keras.Model(inputs, layers.Dense(2, name="y")(layer(x) if layer else x)))


def _two_lengths():
    """Two inputs of one length, and one of any."""
    a, b, free = (keras.Input((None, 4), name=name) for name in ("a", "b", "free"))
    x = layers.MultiHeadAttention(1, 4)(layers.Add()([a, b]), free)
    return randomize(keras.Model([a, b, free], layers.Dense(2, name="y")(x)))


def _half_fixed():
    """One length is fixed by a table, the other is open."""
    fixed, free = (keras.Input((None, 4), name=name) for name in ("fixed", "free"))
    x = layers.MultiHeadAttention(1, 4)(CutTable()(fixed), free)
    return randomize(keras.Model([fixed, free], layers.Dense(2, name="y")(x)))


def _halved_and_doubled():
    """Takes images whose sides are multiples of 32 only."""
    x = inputs = keras.Input((None, None, 1), name="x")
    for _ in range(5):
        x = layers.MaxPooling2D()(x)
    x = layers.UpSampling2D(32)(x)
    return randomize(keras.Model(inputs, layers.Conv2D(1, 1, name="y")(layers.Concatenate()([x, inputs]))))


def _built_by_a_call(*chain, stateful=False):
    model = keras.Sequential([*chain, layers.LSTM(3, stateful=stateful), layers.Dense(2)])
    model(np.zeros((5, 7, 4), "float32"))
    return model


# A model, and its inputs' shapes in the file.
AXES = {
    "any length": (_tokens, {"tokens": (None, None)}),
    "one length": (lambda: _tokens(CutTable()), {"tokens": (None, 16)}),
    "another length than is tried": (lambda: _tokens(CutTable(12)), None),
    "equal lengths": (_two_lengths, {"a": (None, None, 4), "b": (None, None, 4), "free": (None, None, 4)}),
    "one of two lengths": (_half_fixed, {"fixed": (None, 16, 4), "free": (None, None, 4)}),
    "multiples of 32": (_halved_and_doubled, {"x": (None, None, None, 1)}),
    "a fixed batch": (CASES["fixed batch"][0], {"x": (4, 6)}),
    "a fixed batch of a Sequential": (
        lambda: keras.Sequential([keras.Input(batch_shape=(5, 7), name="x"), layers.Dense(2)]),
        {"x": (5, 7)},
    ),
    "a Sequential with a tensor for an input": (
        lambda: keras.Sequential([layers.InputLayer(input_tensor=keras.Input((7,)), name="x"), layers.Dense(2)]),
        {"x": (None, 7)},
    ),
    "a Sequential built by a call": (lambda: _built_by_a_call(), {"input_layer": (None, 7, 4)}),
    "a Sequential built by a call, of one batch": (
        lambda: _built_by_a_call(stateful=True),
        {"input_layer": (5, 7, 4)},
    ),
}


@pytest.mark.parametrize("case", AXES)
def test_an_axis_is_open_if_the_model_runs_at_two_sizes_of_it(case):
    build, shapes = AXES[case]
    keras.backend.clear_session(free_memory=False)  # of the names that Keras counts up
    model = build()
    if shapes is None:
        with pytest.raises(OptionError, match="Pass inputs="):
            settled(model, interface_of(model))
        return
    ready = settled(model, interface_of(model))
    assert {port.name: port.shape for port in ready.interface.inputs} == shapes
    for port in ready.interface.inputs:
        for axis, size in enumerate(port.shape):
            sizes = {sample.inputs[port.name].shape[axis] for sample in ready.samples}
            assert (size is None and len(sizes) == 2) or sizes == {size}


def test_images_are_tried_with_different_sides():
    model = CASES["any size"][0]()
    sides = {sample.inputs["x"].shape[1:3] for sample in settled(model, interface_of(model)).samples}
    assert any(height != width for height, width in sides)


@pytest.mark.parametrize("given", [1, 4])
@pytest.mark.parametrize("length", [16, 12])
def test_given_inputs_settle_the_axes_too(given, length):
    model = _tokens(CutTable(length))
    ready = settled(model, interface_of(model), np.ones((given, length)))
    assert ready.interface.inputs[0].shape == (None, length)
    assert sorted({len(sample.inputs["tokens"]) for sample in ready.samples}) == ([1, 3] if given == 1 else [1, given])


@pytest.mark.parametrize("kind", RUN)
def test_what_runs_at_one_size_is_written_with_it(kind, tmp_path):
    model = _tokens(CutTable())
    report = kerasbn.export(model, tmp_path / FORMATS[kind])
    assert report.inputs == {"tokens": "int32 (batch, 16)"}
    (note,) = report.notes
    assert "axis 1 of input 'tokens' is written as 16" in note
    if kind == "onnx":
        session = onnxruntime.InferenceSession(str(tmp_path / FORMATS[kind]))
        assert session.get_inputs()[0].shape == ["batch", 16]


def test_a_file_that_runs_at_one_size_only_is_not_kept(tmp_path, monkeypatch):
    """A file with an open axis is run at two sizes of it, whatever Keras says."""
    model = _tokens()
    monkeypatch.setattr("kerasbn.exporters.saved_model.runner", _at_one_length)
    with pytest.raises(kerasbn.VerificationError, match="cannot be run on inputs of the shapes"):
        kerasbn.export(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def _at_one_length(path, model, interface):
    def run(inputs):
        if inputs["tokens"].shape[1] != 16:
            raise ValueError("made for 16")
        return {"y": inference(model, inputs["tokens"])[0]}

    return run


@pytest.mark.parametrize("kind", RUN)
def test_names_can_be_given(kind, tmp_path):
    model = CASES["several inputs and outputs"][0]()
    names = {"image": "features", "features": "table", "label": "probabilities"}
    report = kerasbn.export(model, tmp_path / FORMATS[kind], names=names)
    assert (list(report.inputs), list(report.outputs)) == (["features", "table"], ["probabilities", "score"])
    image, table = random_inputs(model, 2)
    expected = dict(zip(report.outputs, inference(model, [image, table]), strict=True))
    assert_close(expected, RUN[kind](tmp_path / FORMATS[kind], {"features": image, "table": table}))


# Names that are refused, and what the message says.
BAD_NAMES = {
    "of nothing": ({"picture": "x"}, "'picture', which the model has not"),
    "of two": ({"image": "x", "features": "x"}, "'x'"),
    "that another has": ({"image": "score"}, "'score'"),
    "empty": ({"image": ""}, "empty"),
}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_bad_names(case, tmp_path):
    names, message = BAD_NAMES[case]
    with pytest.raises(OptionError, match=message):
        kerasbn.export(CASES["several inputs and outputs"][0](), tmp_path / "model.onnx", names=names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", RUN)
@pytest.mark.parametrize("name", ["class", "self", "größe", "_x", "in-put", "1st", "x."])
def test_names_that_tensorflow_does_not_take(name, kind, tmp_path):
    inputs = keras.Input((4,), name=name)
    model = keras.Model(inputs, layers.Dense(2, name="y")(inputs))
    path = tmp_path / FORMATS[kind]
    if kind != "onnx" and name not in ("in-put", "1st", "x."):
        with pytest.raises(UnsupportedModelError, match=f"no input of the name '{name}'"):
            kerasbn.export(model, path)
        assert not list(tmp_path.iterdir())
        report = kerasbn.export(model, path, names={name: "inputs"})
        assert list(report.inputs) == ["inputs"]
    else:
        assert list(kerasbn.export(model, path).inputs) == [name]


@pytest.mark.parametrize("kind", RUN)
@pytest.mark.parametrize("name", ["my model", "модель", "2(x)", "_x"])
def test_models_and_layers_can_have_any_name(name, kind, tmp_path):
    inputs = keras.Input((4,), name="x")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.BatchNormalization()], name=f"{name} inside")
    x = layers.ReLU(name=f"{name} between")(inner(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(2, name=f"{name} at the end")(x), name=name))
    kerasbn.export(model, tmp_path / FORMATS[kind])
    values = random_inputs(model, 2)
    expected = dict(zip(model.output_names, inference(model, values), strict=True))
    assert_close(expected, RUN[kind](tmp_path / FORMATS[kind], {"x": values}))


@pytest.mark.parametrize(
    ("one", "other", "told_apart"), [("A", "a", False), ("a.b", "a_b", False), ("a1", "a_1", True)]
)
def test_names_that_tensorflow_does_not_tell_apart(one, other, told_apart, tmp_path):
    inputs = [keras.Input((4,), name=name) for name in (one, other)]
    model = keras.Model(inputs, layers.Dense(2, name="y")(layers.Add()(inputs)))
    if not told_apart:
        with pytest.raises(UnsupportedModelError, match=f"no input of the name '{other}' beside its others"):
            kerasbn.export(model, tmp_path / "model")
    else:
        assert list(kerasbn.export(model, tmp_path / "model").inputs) == [one, other]


def test_the_way_out_names_the_input_as_the_model_does(tmp_path):
    model = CASES["several inputs and outputs"][0]()
    with pytest.raises(UnsupportedModelError, match=r"names=\{'image': 'x'\}"):
        kerasbn.export(model, tmp_path / "model", names={"image": "class"})


# A precision, and the types of input, output and weights in the file.
PRECISIONS = {"float32": "float32", "keep": "float64"}


@pytest.mark.parametrize("kind", RUN)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision(precision, kind, tmp_path):
    inputs = keras.Input((6,), dtype="float64", name="x")
    model = randomize(keras.Model(inputs, layers.Dense(300, dtype="float64", name="y")(inputs)))
    report = kerasbn.export(model, tmp_path / FORMATS[kind], precision=precision)
    dtype = PRECISIONS[precision]
    assert report.inputs == {"x": f"{dtype} (batch, 6)"}
    assert report.outputs == {"y": f"{dtype} (batch, 300)"}
    assert any("instead of float64" in note for note in report.notes) == (precision == "float32")
    assert report.bytes < 25_000 if precision == "float32" else report.bytes > 16_000
    x = np.ones((2, 6), dtype)
    got = RUN[kind](tmp_path / FORMATS[kind], {"x": x})["y"]
    assert got.dtype == dtype
    assert_close({"y": inference(model, x)[0]}, {"y": got}, tolerance=1e-5 if dtype == "float32" else 1e-12)


# Arguments that are refused, and what the message says.
REFUSED = {
    "unknown precision": ("model.onnx", {"precision": "float16"}, "'float32' or 'keep'"),
    "names of a .keras file": ("model.keras", {"names": {"x": "y"}}, "serving formats"),
    "frozen ONNX": ("model.onnx", {"frozen": True}, "SavedModels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    path, options, message = REFUSED[case]
    with pytest.raises(OptionError, match=message):
        kerasbn.export(CASES["dense, dropout"][0](), tmp_path / path, **options)
    assert not list(tmp_path.iterdir())


def _vocabulary(layer, dtype="string", shape=(1,)):
    inputs = keras.Input(shape, dtype=dtype, name="x")
    x = layer(inputs)
    x = layers.Flatten()(layers.Embedding(9, 3)(x)) if keras.backend.is_int_dtype(x.dtype) else x
    return randomize(keras.Model(inputs, layers.Dense(2, name="y")(x)))


# Preprocessing that a SavedModel serves: a layer, the type of its input.
PREPROCESSING = {
    "words": lambda: _vocabulary(layers.StringLookup(vocabulary=["left", "right"])),
    "words, none unknown": lambda: _vocabulary(layers.StringLookup(vocabulary=["left", "right"], num_oov_indices=0)),
    "text": lambda: _vocabulary(layers.TextVectorization(vocabulary=["left", "right"], output_sequence_length=4)),
    "tf-idf": lambda: _vocabulary(
        layers.TextVectorization(output_mode="tf_idf", vocabulary=["left", "right"], idf_weights=[0.4, 0.7])
    ),
    "numbers": lambda: _vocabulary(layers.IntegerLookup(vocabulary=[0, 1]), "int64"),
    "bins": lambda: _vocabulary(layers.Discretization([-1.0, 1.0]), "float32"),
    "hashes": lambda: _vocabulary(layers.Hashing(4), "string"),
    "one inside a model": lambda: keras.Sequential(
        [keras.Input((1,), dtype="string", name="x"), PREPROCESSING["words"]()], name="y"
    ),
}


@pytest.mark.parametrize("case", PREPROCESSING)
def test_a_saved_model_brings_its_vocabularies(case, tmp_path):
    model = PREPROCESSING[case]()
    report = kerasbn.export(model, tmp_path / "model")
    assert report.max_error <= 1e-6
    dtype = model.inputs[0].dtype
    x = {"string": [["left"], ["right"]], "int64": [[0], [1]], "float32": [[-2.0], [0.0]]}[dtype]
    expected = model(tf.constant(x, dtype), training=False).numpy()
    (got,) = run_saved_model(tmp_path / "model", {"x": tf.constant(x, dtype)}).values()
    assert_close({"y": expected}, {"y": got})
    assert len(np.unique(got, axis=0)) > 1
