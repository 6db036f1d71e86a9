"""What is exported computes what the model computes: each format, run without kerasbn's own check."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasbn
from tests.exporters.cases import (
    CASES,
    FORMATS,
    RUNNERS,
    assert_close,
    assert_serves,
    names_of,
    run_saved_model,
)
from tests.helpers import inference, random_inputs, randomize, snapshot

pytestmark = pytest.mark.tensorflow


def _cases_by_format():
    """All for ONNX and SavedModel; of the others, which are made of the same graph, one in three unless time allows."""
    for number, case in enumerate(CASES):
        for kind in FORMATS:
            rare = kind not in ("onnx", "saved_model") and number % 3
            yield pytest.param(case, kind, marks=pytest.mark.slow if rare else ())


@pytest.mark.parametrize(("case", "kind"), _cases_by_format())
def test_every_format_serves_the_model(case, kind, tmp_path):
    build, inputs, outputs = CASES[case]
    model = build()
    kerasbn.export(model, tmp_path / FORMATS[kind], verify=False)
    assert_serves(tmp_path / FORMATS[kind], model, names_of(inputs), names_of(outputs))


@pytest.mark.parametrize("case", CASES)
def test_the_check_passes_on_what_is_right(case, tmp_path):
    report = kerasbn.export(CASES[case][0](), tmp_path / "model.keras")
    assert report.max_error <= 1e-6


@pytest.mark.parametrize("fold", [True, False])
def test_a_model_that_was_saved_in_h5_keeps_its_optimizer(fold, tmp_path):
    """Keras takes it out of what the model was compiled with."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.save(tmp_path / "model.h5")
    before = snapshot(model)
    kerasbn.export(model, tmp_path / "model.keras", fold=fold)
    assert kerasbn.load(tmp_path / "model.keras").optimizer.momentum == 0.9
    assert snapshot(model) == before


@pytest.mark.parametrize("kind", FORMATS)
def test_a_model_just_loaded_keeps_its_names(kind, tmp_path):
    """A nameless input's tensor is counted up anew in every process, its layer is not."""
    source = randomize(keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()]))
    source.save(tmp_path / "source.keras")
    loaded = keras.models.load_model(tmp_path / "source.keras")
    names = [source.inputs[0]._keras_history.operation.name], [source.layers[-1].name]
    for model in (source, loaded):
        path = tmp_path / model.name / FORMATS[kind]
        path.parent.mkdir(exist_ok=True)
        kerasbn.export(model, path, overwrite=True)
        assert_serves(path, source, *names)


@pytest.mark.parametrize("kind", RUNNERS)
def test_random_layers_are_off(kind, tmp_path):
    model = CASES["random layers"][0]()
    path = tmp_path / FORMATS[kind]
    kerasbn.export(model, path)
    inputs = {"x": random_inputs(model)}
    assert_close(RUNNERS[kind](path, inputs), RUNNERS[kind](path, inputs), tolerance=0)


PRECISIONS = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64")


def _of_precision(policy):
    inputs = keras.Input((8, 8, 3), name="x", dtype="float64" if policy == "float64" else None)
    x = layers.Conv2D(4, 3, activation="relu", dtype=policy)(inputs)
    x = layers.Flatten(dtype=policy)(layers.BatchNormalization(dtype=policy)(x) * 2.0)
    x = layers.Dense(5, activation="gelu", dtype=policy)(x)
    return keras.Model(inputs, layers.LayerNormalization(dtype=policy, name="y")(x))


@pytest.mark.parametrize("kind", RUNNERS)
@pytest.mark.parametrize("policy", PRECISIONS)
def test_other_precisions_are_served_in_float32(policy, kind, tmp_path):
    model, twin = randomize(_of_precision(policy)), _of_precision("float32")
    for ours, theirs in zip(twin.variables, model.variables, strict=True):
        ours.assign(keras.ops.cast(theirs, ours.dtype))
    before = [layer.dtype_policy for layer in model.layers]

    report = kerasbn.export(model, tmp_path / FORMATS[kind])

    assert report.max_error <= 1e-4
    assert any("computed in float32" in note for note in report.notes)
    assert [layer.dtype_policy for layer in model.layers] == before
    assert_serves(tmp_path / FORMATS[kind], twin, ["x"], ["y"], batches=(3,))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_rnns_of_other_precisions(policy, tmp_path):
    layer = layers.Bidirectional(layers.GRU(3, dtype=policy), dtype=policy)
    model = randomize(keras.Sequential([keras.Input((5, 4)), layer, layers.Dense(2, dtype=policy)]))
    assert kerasbn.export(model, tmp_path / "model.onnx").max_error <= 1e-4


@pytest.mark.parametrize("policy", PRECISIONS)
def test_a_keras_file_keeps_its_precision(policy, tmp_path):
    model = randomize(_of_precision(policy))
    kerasbn.export(model, tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.dtype_policy.name for layer in loaded.layers] == [layer.dtype_policy.name for layer in model.layers]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("verify", [True, False])
def test_the_model_stays_as_it_is(kind, verify, tmp_path):
    model = CASES["random layers"][0]()
    model.compile("adam", "mse")
    before = snapshot(model)
    kerasbn.export(model, tmp_path / FORMATS[kind], verify=verify)
    assert snapshot(model) == before


def test_the_check_leaves_the_states_of_rnns_alone(tmp_path):
    inputs = keras.Input(batch_shape=(2, 5, 6))
    model = randomize(keras.Model(inputs, layers.LSTM(3, stateful=True)(inputs)))
    report = kerasbn.export(model, tmp_path / "model.keras")
    assert report.max_error <= 1e-6
    for state in model.layers[1].states:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(state), 0)


def test_a_custom_layer_that_nobody_registered(tmp_path):
    class Doubled(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    model = randomize(keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3), Doubled(name="y")]))
    for kind in RUNNERS:
        kerasbn.export(model, tmp_path / FORMATS[kind])
        assert_serves(tmp_path / FORMATS[kind], model, ["x"], ["y"])
    kerasbn.export(model, tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Doubled": Doubled})
    inputs = random_inputs(model)
    np.testing.assert_array_equal(inference(model, inputs), inference(loaded, inputs))


def test_a_keras_file_is_verified_with_what_the_user_made(tmp_path):
    class Halves(keras.Initializer):
        def __call__(self, shape, dtype=None):
            return 0.5 * keras.ops.ones(shape, dtype)

        def get_config(self):
            return {}

    def doubled(x):
        return 2 * x

    layer = layers.Dense(3, activation=doubled, kernel_initializer=Halves())
    model = randomize(keras.Sequential([keras.Input((4,), name="x"), layer]))
    assert kerasbn.export(model, tmp_path / "model.keras").max_error <= 1e-6


def test_a_signature_needs_nothing_else_to_live(tmp_path):
    """A loaded signature runs with the source model gone."""
    model = CASES["layers called twice"][0]()
    inputs = random_inputs(model)
    (expected,) = inference(model, inputs)
    kerasbn.export(model, tmp_path / "model")
    del model
    gc.collect()
    assert_close({"y": expected}, run_saved_model(tmp_path / "model", {"x": inputs}))


@pytest.mark.parametrize("kind", FORMATS)
def test_report(kind, tmp_path):
    model = CASES["dense, dropout"][0]()
    path = tmp_path / FORMATS[kind]
    report = kerasbn.export(model, str(path))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert (report.path, report.format) == (path, kind)
    assert report.bytes == sum(len(file.read_bytes()) for file in files)
    assert report.nodes > 0
    assert report.seconds > 0
    assert 0 <= report.max_error <= 1e-4
    assert report.versions["keras"] == keras.__version__
    assert report.versions["tensorflow"] == tf.__version__
    assert report.to_dict()["path"] == str(path)
    where, what, folded, *ports = str(report).splitlines()
    assert (where, folded) == (str(path), f"batch normalization: {report.folded} folded, 0 kept")
    assert what.startswith(f"{kind}, ")
    assert what.endswith(f"differs by {report.max_error:.1e} of the greatest output")
    assert [port.split()[1] for port in ports] == [f"{name}:" for name in (*report.inputs, *report.outputs)]
    assert kerasbn.export(model, path, verify=False, overwrite=True).max_error is None


@pytest.mark.parametrize("path", ["model.v2", "model.onnx"])
def test_the_format_can_be_named(path, tmp_path):
    report = kerasbn.export(CASES["dense, dropout"][0](), tmp_path / path, format="saved_model")
    assert report.format == "saved_model"
    assert (tmp_path / path / "saved_model.pb").is_file()


@pytest.mark.parametrize("kind", FORMATS)
def test_batch_normalization_is_folded(kind, tmp_path):
    inputs = keras.Input((6,), name="x")
    x = keras.layers.BatchNormalization(name="folded")(keras.layers.Dense(5, name="fc")(inputs))
    x = keras.layers.BatchNormalization(name="kept")(keras.layers.Activation("tanh")(x))
    x = keras.layers.Dense(4, name="head")(keras.layers.Activation("tanh")(x))
    model = randomize(keras.Model(inputs, keras.layers.BatchNormalization(name="scores")(x)))
    before = snapshot(model)
    report = kerasbn.export(model, tmp_path / FORMATS[kind])
    assert (report.folded, report.kept) == (2, {"nonlinear": 1})
    assert report.max_error <= 1e-5
    assert snapshot(model) == before
    assert_serves(tmp_path / FORMATS[kind], model, ["x"], ["scores"])
    whole = kerasbn.export(model, tmp_path / FORMATS[kind], fold=False, overwrite=True)
    assert (whole.folded, whole.kept) == (0, {})
    assert report.nodes <= whole.nodes


class Unknowable(keras.layers.Layer):
    """A layer that cannot be made again."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def get_config(self):
        raise NotImplementedError

    def call(self, x):
        return x * self.factor


def test_layers_that_cannot_be_rebuilt_do_not_stand_in_the_way(tmp_path):
    layers = [keras.layers.Dense(5), keras.layers.BatchNormalization(), Unknowable(2.0)]
    model = randomize(keras.Sequential([keras.Input((6,)), *layers]))
    report = kerasbn.export(model, tmp_path / "model.onnx")
    assert (report.folded, report.kept) == (1, {})


class Trained(keras.Model):
    """A model that trains in its own way, and cannot be made from its tensors."""

    def __init__(self):
        inputs = keras.Input((6,))
        super().__init__(inputs, keras.layers.BatchNormalization()(keras.layers.Dense(5)(inputs)))

    def train_step(self, data):
        raise NotImplementedError
