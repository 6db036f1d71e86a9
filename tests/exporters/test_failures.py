"""What cannot be exported is refused by name, and what fails leaves nothing behind."""

import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasbn
from kerasbn import ModelFileError, OptionError, UnsupportedModelError, VerificationError
from kerasbn.exporters import keras_file, litert_file, onnx_file, openvino_file, saved_model
from kerasbn.files import staging
from tests.exporters.cases import CASES, FORMATS
from tests.helpers import randomize

pytestmark = pytest.mark.tensorflow

WRITERS = {
    "onnx": onnx_file,
    "saved_model": saved_model,
    "litert": litert_file,
    "openvino": openvino_file,
    "keras": keras_file,
}


def _model():
    return randomize(keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, name="y")]))


def _content(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _tokens(layer, dtype, steps=1):
    inputs = keras.Input((steps,), dtype=dtype)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Embedding(9, 3)(layer(inputs)))))


def _strings():
    return _tokens(layers.StringLookup(vocabulary=["a", "b"], name="culprit"), "string")


def _text():
    layer = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4, name="culprit")
    return _tokens(layer, "string")


def _nested_strings():
    inputs = keras.Input((1,), dtype="string")
    return keras.Model(inputs, _strings()(inputs))


def _one_layer(layer, shape=None, **kwargs):
    inputs = keras.Input(shape, **kwargs)
    return keras.Model(inputs, layer(inputs))


class _Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


class _Counting(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), trainable=False, name="count")

    def call(self, inputs):
        self.count.assign(self.count + 1)
        return inputs


class _Drawing(layers.Layer):
    """Noise, at inference too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seed_generator)


class _ArgMax(layers.Layer):
    def call(self, inputs):
        return keras.ops.argmax(inputs, axis=-1)


# What cannot be served, and what the message must name.
UNSUPPORTED = {
    "open time": (
        lambda: _one_layer(layers.TimeDistributed(layers.Conv2D(2, 3), name="culprit"), (None, 8, 8, 3)),
        "culprit",
    ),
    "open time, dense": (
        lambda: _one_layer(_one_layer(layers.TimeDistributed(layers.Dense(2), name="culprit"), (None, 4)), (None, 4)),
        "culprit",
    ),
    "stateful": (lambda: _one_layer(layers.LSTM(3, stateful=True, name="culprit"), batch_shape=(2, 5, 4)), "culprit"),
    "state that changes": (lambda: _one_layer(_Counting(name="culprit"), (4,)), "culprit/count"),
    "noise": (lambda: _one_layer(_Drawing(name="culprit"), (4,)), "culprit/seed_generator"),
    "not built": (lambda: keras.Sequential([layers.Dense(2)], name="culprit"), "culprit"),
    "subclassed": (lambda: _Subclassed(name="culprit"), "culprit"),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("kind", ["onnx", "saved_model", "litert", "openvino"])
@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported(case, kind, verify, tmp_path):
    build, culprit = UNSUPPORTED[case]
    with pytest.raises(UnsupportedModelError, match=culprit):
        kerasbn.export(build(), tmp_path / FORMATS[kind], verify=verify)
    assert not list(tmp_path.iterdir())


def _inverse_error_lstm():
    small = keras.initializers.RandomUniform(-0.01, 0.01)  # The activation is infinite at 1.
    return layers.LSTM(
        3, activation=keras.ops.erfinv, kernel_initializer=small, recurrent_initializer=small, name="culprit"
    )


# What ONNX alone has no form for.
NO_ONNX = {
    "strings": _strings,
    "text": _text,
    "integers": lambda: _tokens(layers.IntegerLookup(vocabulary=[3, 4], name="culprit"), "int64"),
    "strings in a nested model": _nested_strings,
    "discretization": lambda: _tokens(layers.Discretization([0.0, 1.0], name="culprit"), "float32"),
    "hashing": lambda: _tokens(layers.Hashing(4, name="culprit"), "int64"),
    "argmax": lambda: _one_layer(_ArgMax(name="culprit"), (4,)),
    "in a loop": lambda: _one_layer(_inverse_error_lstm(), (5, 4)),
}


@pytest.mark.parametrize("case", NO_ONNX)
def test_without_a_form_in_onnx(case, tmp_path):
    model = NO_ONNX[case]()
    with pytest.raises(UnsupportedModelError, match=r"'([\w/]+/)?culprit(/\w+)?'"):
        kerasbn.export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    kerasbn.export(model, tmp_path / "model")


# Arguments of an export, the error, and a part of its message.
REFUSED = {
    "unknown suffix": ("model.pb", {}, OptionError, "'.pb'"),
    "unknown format": ("model.onnx", {"format": "tflite"}, OptionError, "'tflite'"),
    "keras without its suffix": ("model", {"format": "keras"}, OptionError, ".keras"),
    "opset too low": ("model.onnx", {"opset": 12}, OptionError, "opset is 12"),
    "opset too high": ("model.onnx", {"opset": 19}, OptionError, "opset is 19"),
    "no such folder": ("missing/model.onnx", {}, ModelFileError, "missing"),
    "exists": ("old.onnx", {}, ModelFileError, "exists already"),
    "a folder of something else": ("folder", {"overwrite": True}, ModelFileError, "other than a SavedModel"),
    "a file where a folder goes": (
        "old.onnx",
        {"overwrite": True, "format": "saved_model"},
        ModelFileError,
        "old.onnx",
    ),
    "inputs of another width": ("model.onnx", {"inputs": np.ones((2, 5))}, OptionError, "one batch of x"),
    "inputs of another rank": ("model.onnx", {"inputs": np.ones((2, 4, 1))}, OptionError, "one batch of x"),
    "too many inputs": ("model.onnx", {"inputs": [np.ones((2, 4))] * 2}, OptionError, "one batch of x"),
    "inputs by a wrong name": ("model.onnx", {"inputs": {"a": np.ones((2, 4)), "b": 0}}, OptionError, "one batch"),
    "inputs without a batch": ("model.onnx", {"inputs": np.float32(1)}, OptionError, "one batch"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    path, options, error, message = REFUSED[case]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("precious")
    (tmp_path / "old.onnx").write_text("old")
    before = _content(tmp_path)
    with pytest.raises(error, match=message.replace(".", r"\.")):
        kerasbn.export(_model(), tmp_path / path, **options)
    assert _content(tmp_path) == before


def test_not_a_model(tmp_path):
    with pytest.raises(UnsupportedModelError, match="got str"):
        kerasbn.export("model.keras", tmp_path / "model.onnx")


def _raising(error):
    def stand_in(*args, **kwargs):
        raise error

    return stand_in


def _running(change):
    """A stand-in for a format's `runner`, whose outcome is not what it should be."""

    def runner(*args):
        return lambda inputs: change({"y": np.zeros((len(inputs["x"]), 3))})

    return runner


def _writing_half_then(error):
    def write(model, interface, path, settings):
        path.write_text("half")
        raise error

    return write


# What to break in the module of a format, and the error.
BROKEN = {
    "other values": ("runner", _running(lambda outputs: outputs), VerificationError),
    "not a number": ("runner", _running(lambda outputs: {"y": outputs["y"] * np.nan}), VerificationError),
    "other shape": ("runner", _running(lambda outputs: {"y": outputs["y"][:, :1]}), VerificationError),
    "other names": ("runner", _running(lambda outputs: {"z": outputs["y"]}), VerificationError),
    "cannot be run": ("runner", lambda *args: _raising(RuntimeError("no such operation")), VerificationError),
    "cannot be loaded": ("runner", _raising(RuntimeError("no such file")), VerificationError),
    "cannot be converted": ("write", _writing_half_then(RuntimeError("no such operation")), UnsupportedModelError),
    "disk full": ("write", _writing_half_then(OSError(28, "No space left on device")), ModelFileError),
    "interrupted": ("write", _writing_half_then(KeyboardInterrupt()), KeyboardInterrupt),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", BROKEN)
def test_a_failure_leaves_nothing_but_the_old_file(case, kind, tmp_path, monkeypatch):
    model, new, old = _model(), tmp_path / "new", tmp_path / "old"
    new.mkdir()
    old.mkdir()
    kerasbn.export(model, old / FORMATS[kind], verify=False)
    before = _content(tmp_path)
    part, stand_in, error = BROKEN[case]
    monkeypatch.setattr(WRITERS[kind], part, stand_in)

    for folder in (new, old):
        with pytest.raises(error):
            kerasbn.export(model, folder / FORMATS[kind], overwrite=folder is old)

    assert _content(tmp_path) == before
    assert not list(new.iterdir())
    assert {path.stem for path in old.iterdir()} == {"model"}


def test_a_full_disk_as_tensorflow_tells_it(tmp_path, monkeypatch):
    full = tf.errors.ResourceExhaustedError(None, None, "variables.data; No space left on device")
    monkeypatch.setattr(tf.saved_model, "save", _raising(full))
    with pytest.raises(ModelFileError, match=r"Cannot write '.*model': .*No space left on device"):
        kerasbn.export(_model(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not pathlib.Path("/proc/self").is_dir(), reason="needs a folder that nobody can write to")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_that_cannot_be_written_to(kind):
    with pytest.raises(ModelFileError, match="Cannot write '/proc/model"):
        kerasbn.export(_model(), pathlib.Path("/proc") / FORMATS[kind])


@pytest.mark.parametrize("kind", FORMATS)
def test_overwriting_replaces_all_of_the_old(kind, tmp_path):
    path = tmp_path / FORMATS[kind]
    kerasbn.export(CASES["image classifier"][0](), path)
    report = kerasbn.export(_model(), path, overwrite=True)
    assert report.bytes == sum(len(content) for content in _content(tmp_path).values())
    assert {each.stem for each in tmp_path.iterdir()} == {"model"}


def test_a_file_that_loads_as_something_else_is_not_kept(tmp_path):
    """Normalization computes with statistics that it caches; a file holds its variables."""
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)))
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.adapt_mean.assign(layer.adapt_mean + 1)
    with pytest.raises(VerificationError, match="differs"):
        kerasbn.export(model, tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_inputs_that_verify_nothing(tmp_path):
    with pytest.raises(OptionError, match="at least one example"):
        kerasbn.export(_model(), tmp_path / "model.onnx", inputs=np.ones((0, 4)))
    assert not list(tmp_path.iterdir())


def test_given_inputs_of_a_fixed_batch(tmp_path):
    model = CASES["fixed batch"][0]()
    assert kerasbn.export(model, tmp_path / "model.onnx", inputs=np.ones((4, 6))).max_error <= 1e-4
    with pytest.raises(OptionError, match="one batch of x"):
        kerasbn.export(model, tmp_path / "other.onnx", inputs=np.ones((3, 6)))


@pytest.mark.parametrize("given", ["structure", "by name"])
def test_given_inputs_in_either_form(given, tmp_path):
    model = CASES["several inputs and outputs"][0]()
    image, features = np.ones((2, 8, 8, 3)), np.ones((2, 4))
    inputs = [image, features] if given == "structure" else {"features": features, "image": image}
    assert kerasbn.export(model, tmp_path / "model.onnx", inputs=inputs).max_error <= 1e-4


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="what is open is seen on Linux")
@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_moved_into_place_is_closed(kind, tmp_path, monkeypatch):
    """Windows moves nothing that is open or mapped into memory."""
    held, move = [], staging.move_into_place

    def seen(folder, *names):
        files = [os.readlink(each) for each in pathlib.Path("/proc/self/fd").iterdir() if each.is_symlink()]
        mapped = [line.split(maxsplit=5)[-1] for line in pathlib.Path("/proc/self/maps").read_text().splitlines()]
        held.extend(each for each in (*files, *mapped) if f"{folder}{os.sep}new" in each)
        move(folder, *names)

    monkeypatch.setattr(staging, "move_into_place", seen)
    target = tmp_path / f"model{FORMATS[kind]}"
    kerasbn.export(_model(), target, format=kind)
    assert target.exists()
    assert not held
