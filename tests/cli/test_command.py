"""The command in this process: what it takes, what it says, and what it leaves on the disk."""

import json
import os
import signal
import sys
import time

import click
import keras
import numpy as np
import onnx
import pytest
from keras import layers

import kerasbn
from kerasbn import planner
from kerasbn.cli import config, job, main, reporting, signals
from kerasbn.cli.outputs import Output
from kerasbn.exporters import onnx_file
from tests.exporters.cases import assert_serves
from tests.helpers import assert_same_function, names, random_inputs, randomize

pytestmark = pytest.mark.tensorflow


def _model():
    return randomize(
        keras.Sequential(
            [
                keras.Input((6,), name="x"),
                layers.Dense(8, activation="relu", name="a"),
                layers.Dropout(0.5, name="drop"),
                layers.Dense(8, activation="tanh", name="b"),
                layers.Dense(3, name="y"),
            ],
            name="net",
        )
    )


class _Unregistered(layers.Layer):
    def call(self, inputs):
        return inputs


def _strings():
    inputs = keras.Input((1,), dtype="string")
    indices = layers.StringLookup(vocabulary=["a", "b"], name="lookup")(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Embedding(9, 3)(indices))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of all kinds, and things that are none."""
    folder = tmp_path_factory.mktemp("models")
    model = _model()
    model.save(folder / "plain.keras")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    keras.Sequential([*model.layers[:1], layers.Lambda(lambda x: 2 * x)]).save(folder / "lambda.keras")
    keras.Sequential([*model.layers[:1], _Unregistered()]).save(folder / "custom.keras")
    keras.Sequential([layers.Dense(2)], name="raw").save(folder / "raw.keras")
    _strings().save(folder / "strings.keras")
    (folder / "text.keras").write_text("not a model")
    (folder / "broken.npy").write_bytes(b"no array")
    np.save(folder / "words.npy", np.array(["a", "b"]))
    np.savez(folder / "ragged.npz", x=np.zeros((4, 6)), y=np.zeros((5, 3)))
    np.save(folder / "narrow.npy", np.zeros((4, 1), "float32"))
    (folder / "short.keras").write_bytes((folder / "m.keras").read_bytes()[:5000])
    (folder / "old.onnx").write_text("old")
    (folder / "old.html").write_text("old")
    (folder / "net.json").write_text(model.to_json())
    model.save_weights(folder / "w.weights.h5")
    (folder / "w.h5").write_bytes((folder / "w.weights.h5").read_bytes())
    (folder / "stuff").mkdir()
    (folder / "stuff" / "precious").write_text("precious")
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").write_text("old")
    (folder / "saved" / "m.keras").write_bytes((folder / "m.keras").read_bytes())
    return folder


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Run the command in the folder: its exit status, what it prints, and its lines on stderr."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["kerasbn-rewrite", *map(str, arguments)])
        status = main._status()
        out, err = capsys.readouterr()
        return status, out, [line for line in err.splitlines() if line.strip()]

    return run


def _content(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


# Arguments, and a part of the message.
BAD = {
    "no arguments": ("", "MODEL"),
    "no output": ("m.keras", "-o"),
    "no config": ("m.keras -o a.keras --config missing.toml", "'missing.toml'"),
    "missing": ("missing.keras -o a.keras", "'missing.keras' does not exist"),
    "folder": ("stuff -o a.keras", "folder"),
    "other suffix": ("old.onnx -o a.keras", ".onnx"),
    "text": ("text.keras -o a.keras", "'text.keras' is not a .keras archive"),
    "cut short": ("short.keras -o a.keras", "cut short"),
    "code": ("lambda.keras -o a.keras", "--unsafe"),
    "custom layer": ("custom.keras -o a.keras", "'_Unregistered'"),
    "not built": ("raw.keras -o a.keras", "'raw'"),
    "exists": ("m.keras -o old.onnx", "--force"),
    "second exists": ("m.keras -o a.keras -o old.onnx", "--force"),
    "exists, dry": ("m.keras -o old.onnx --dry-run", "--force"),
    "folder of something else": ("m.keras -o stuff --force", "other than a SavedModel"),
    "this folder": ("m.keras -o . --force", "'.'"),
    "the model itself": ("m.keras -o m.keras --force", "never touched"),
    "the model by another path": ("m.keras -o stuff/../m.keras --force", "never touched"),
    "the model's folder": ("saved/m.keras -o saved --force", "never touched"),
    "twice": ("m.keras -o a.keras -o a.keras", "twice"),
    "twice by another path": ("m.keras -o a.keras -o ./stuff/../a.keras", "twice"),
    "one in another": ("m.keras -o saved -o saved/a.keras --force", "lies in another"),
    "a long name": (f"m.keras plain.keras -o {'n' * 300}", "File name too long"),
    "unknown suffix": ("m.keras -o a.pb", "'.pb'"),
    "report of another kind": ("m.keras -o a.keras --report a.pdf", "use .html or .json"),
    "report exists": ("m.keras -o a.keras --report old.html", "--force"),
    "report exists, dry": ("m.keras --dry-run --report old.html", "--force"),
    "report twice": ("m.keras -o a.keras --report a.html --report ./a.html", "twice"),
    "report in an output": ("m.keras -o saved --force --report saved/a.html", "lies in what is"),
    "report in place of the model": ("net.json --weights w.h5 -o a.keras --force --report net.json", "is given twice"),
    "report into a missing folder": ("m.keras -o a.keras --report missing/a.html", "'missing' does not exist"),
    "missing folder": ("m.keras -o missing/a.keras", "'missing' does not exist"),
    "stdout": ("m.keras -o -", "nothing goes to stdout"),
    "several, no output": ("m.keras m.h5", "-o"),
    "several of one name": ("m.keras m.h5 -o new", "'m.keras' and 'm.h5' would all be written to"),
    "one twice": ("m.keras ./m.keras -o new", "given twice"),
    "several to several": ("m.keras plain.keras -o new -o newer", "one output"),
    "several to a file": ("m.keras plain.keras -o old.onnx", "'old.onnx' is a file"),
    "several to a missing folder": ("m.keras plain.keras -o missing/new", "'missing' does not exist"),
    "a format that the layout is not for": ("m.keras -o new --format onnx --layout tf_serving", "'saved_model'"),
    "unknown format": ("m.keras -o new --format caffe", "'--format'"),
    "two formats in one folder": ("m.keras -o new --format onnx --format saved_model --layout triton", "two formats"),
    "another backend in this process": ("m.keras -o a.keras --backend jax", "runs on tensorflow in this process"),
    "a backend that is not installed": ("m.keras -o a.keras --backend torch", "torch"),
    "unknown position": ("m.keras -o a.keras --position middle", "'--position'"),
    "unknown norm": ("m.keras -o a.keras --norm layer", "'--norm'"),
    "unknown dropout": ("m.keras -o a.keras --dropout some", "'--dropout'"),
    "unknown option": ("m.keras -o a.keras --speed", "--speed"),
    "malformed rule": ("m.keras -o a.keras --rule a", "GLOB=POSITION"),
    "rule without a glob": ("m.keras -o a.keras --rule =after", "GLOB=POSITION"),
    "rule to nowhere": ("m.keras -o a.keras --rule a=middle", "GLOB=POSITION"),
    "rule for nothing": ("m.keras -o a.keras --rule nothing*=after", "'nothing*' matches no layer"),
    "negative rate": ("m.keras -o a.keras --lr-scale -1", "'--lr-scale'"),
    "rate of nothing": ("m.keras -o a.keras --lr-scale nan", "nan"),
    "no such recipe": ("m.keras -o a.keras --recipe bn-x7", "bn-x7"),
    "no sample": ("m.keras -o a.keras --calibrate none.npy", "none.npy"),
    "sample of another kind": ("m.keras -o a.keras --calibrate m.keras", ".npz"),
    "no data": ("m.keras -o a.keras --data none.npy", "none.npy"),
    "int8 of no data": ("m.keras -o a.onnx --quantize int8", "--calibrate or --data"),
    "quantized in a format without": ("m.keras -o a.keras --quantize float16", "'onnx', 'litert', 'openvino'"),
    "broken sample": ("m.keras -o a.keras --calibrate broken.npy", "cannot be read"),
    "sample of words": ("m.keras -o a.keras --calibrate words.npy", "'words.npy' holds 'arr_0' of type <U1"),
    "sample of different lengths": ("m.keras -o a.keras --data ragged.npz", "'x' 4, 'y' 5"),
    "sample of another shape": ("m.keras -o a.keras --calibrate narrow.npy", "has shape"),
    "rate without an optimizer": ("plain.keras -o a.keras --lr-scale 5", "learning_rate_scale"),
    "opset": ("m.keras -o a.onnx --opset 19", "'--opset'"),
    "strings to serving": ("strings.keras -o a.onnx --no-verify", "'lookup'"),
    "strings to serving, after another": ("strings.keras -o a.keras -o a.onnx --no-verify", "'lookup'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, command, folder):
    arguments, message = BAD[case]
    before = _content(folder)
    status, out, errors = command(*arguments.split())
    assert (status, out) == (2, "")
    assert len(errors) == 1
    assert errors[0].startswith("kerasbn-rewrite: ")
    assert message in errors[0]
    assert _content(folder) == before


def test_what_is_our_own_fault_is_one_line_too(command, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("\x1b[1mone\x1b[0m\ntwo")

    monkeypatch.setattr(job, "read", broken)
    status, out, errors = command("m.keras", "--dry-run")
    assert (status, out) == (2, "")
    assert errors == ["kerasbn-rewrite: RuntimeError: one two. Please report this, with what -v prints."]
    status, out, errors = command("m.keras", "--dry-run", "-v")
    assert (status, out) == (2, "")
    assert "Traceback" in errors[0]
    assert errors[-1].startswith("kerasbn-rewrite: RuntimeError: ")


OUTPUTS = ("new.keras", "new.onnx", "new")


@pytest.mark.parametrize("model", ["m.keras", "m.h5"])
def test_several_outputs(model, command, folder, tmp_path):
    source = keras.models.load_model(folder / "m.keras")
    before = _content(folder)
    status, out, errors = command(model, *(part for output in OUTPUTS for part in ("-o", tmp_path / output)))
    assert (status, errors) == (0, [])
    assert _content(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(OUTPUTS)
    for output in OUTPUTS:
        assert output in out
        assert_serves(tmp_path / output, source, ["x"], ["y"])
    rewritten = keras.models.load_model(tmp_path / "new.keras")
    assert names(rewritten) == names(kerasbn.rewrite(source))
    assert type(rewritten.get_layer("a_bn")) is kerasbn.layers.BatchNormalization


# Options, and the layers of the model that is written.
OPTIONS = {
    "": "a a_bn a_activation b b_bn y",
    "--position before": "a a_bn a_activation b b_bn b_activation y",
    "--position after": "a a_bn b b_bn y",
    "--position none": "a drop b y",
    "--dropout none": "a a_bn a_activation drop b b_bn y",
    "--dropout all --position none": "a b y",
    "--rule a=skip": "a b b_bn y",
    "--rule a=after --rule *=skip": "a a_bn drop b y",
    "--norm keras": "a a_bn a_activation b b_bn y",
    "--lr-scale 5": "a a_bn a_activation b b_bn y",
    "--weight-decay-scale 0.2 --decay-speedup 6": "a a_bn a_activation b b_bn y",
    "--rate a=0.5 --rate *=2 --l2 1e-4": "a a_bn a_activation b b_bn y",
    "--normalize-inputs --position none": "x_bn a drop b y",
    "--recipe bn-x5": "a a_bn a_activation b b_bn b_activation y",
    "--recipe bn-x5 --position auto --dropout none --lr-scale 1": "a a_bn a_activation drop b b_bn y",
    "--no-preserve": "a a_bn a_activation b b_bn y",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options(options, command, folder, tmp_path):
    status, _, errors = command("m.keras", "-o", tmp_path / "new.keras", *options.split())
    assert (status, errors) == (0, [])
    written = keras.models.load_model(tmp_path / "new.keras")
    assert names(written) == OPTIONS[options]
    normalization = keras.layers.BatchNormalization if "keras" in options else kerasbn.layers.BatchNormalization
    assert {type(layer) for layer in written.layers if layer.name.endswith("_bn")} <= {normalization}
    faster = "--lr-scale 5" in options or options == "--recipe bn-x5"
    np.testing.assert_allclose(written.optimizer.learning_rate, 0.5 if faster else 0.1)
    if "--no-preserve" not in options:
        assert_same_function(keras.models.load_model(folder / "m.keras"), written)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--existing keep", keras.layers.BatchNormalization),
        ("--existing replace", kerasbn.layers.BatchNormalization),
        ("--rule bn=replace", kerasbn.layers.BatchNormalization),
        ("--existing remove --position none", None),
        ("--existing remove --rule bn=keep", keras.layers.BatchNormalization),
    ],
)
def test_existing_normalization(options, expected, command, tmp_path):
    both = layers.Dense(8, name="a"), layers.BatchNormalization(name="bn")
    source = randomize(keras.Sequential([keras.Input((6,), name="x"), *both, layers.Dense(2, name="y")]))
    source.save(tmp_path / "m.keras")
    status, _, errors = command(tmp_path / "m.keras", "-o", tmp_path / "new.keras", *options.split())
    assert (status, errors) == (0, [])
    kinds = {layer.name: type(layer) for layer in keras.models.load_model(tmp_path / "new.keras").layers}
    assert kinds.get("bn") is expected


@pytest.mark.parametrize(
    ("options", "normalized"),
    [("", False), ("--recurrent sequence_wise", True), ("--rule rnn=before", True), ("--recurrent none", False)],
)
def test_recurrent_layers(options, normalized, command, tmp_path):
    both = layers.LSTM(4, return_sequences=True, name="rnn"), layers.Dense(2, name="y")
    source = randomize(keras.Sequential([keras.Input((None, 3), name="x"), *both]))
    source.save(tmp_path / "m.keras")
    outputs = [tmp_path / "new.keras", tmp_path / "new.onnx"]
    arguments = [part for output in outputs for part in ("-o", output)]
    status, _, errors = command(tmp_path / "m.keras", *arguments, *options.split())
    assert (status, errors) == (0, [])
    written = keras.models.load_model(outputs[0])
    assert isinstance(written.get_layer("rnn"), kerasbn.layers.BatchNormalizedRNN) == normalized
    assert_same_function(source, written)
    assert "LSTM" in {node.op_type for node in onnx.load(outputs[1]).graph.node}


CONFIGS = {
    'position = "none"': ("", "a drop b y"),
    'rules = [["a", "after"], ["*", "skip"]]\ndropout = "none"': ("", "a a_bn drop b y"),
    'position = "none"\nnorm = "keras"': ("--position auto", "a a_bn a_activation b b_bn y"),
    'dropout = "none"': ("--recipe bn-x5", "a a_bn a_activation drop b b_bn b_activation y"),
    'dropout = "none"\nrecipe = "bn-x5"': ("", "a a_bn a_activation drop b b_bn b_activation y"),
    'rule = ["a=skip"]\nfold = true\nno_verify = true': ("", "a b y"),
    'rules = [["a", "skip"]]\nfold = true': ("--no-fold", "a b b_bn y"),
    'rates = [["a", 0.5]]\nl2 = 1e-4\nposition = "none"': ("", "a drop b y"),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_config(config, command, tmp_path):
    """The command line wins over the file, the file over a recipe."""
    options, expected = CONFIGS[config]
    (tmp_path / "options.toml").write_text(config)
    arguments = ("--config", tmp_path / "options.toml", *options.split())
    status, _, errors = command("m.keras", "-o", tmp_path / "new.keras", *arguments)
    assert (status, errors) == (0, [])
    written = keras.models.load_model(tmp_path / "new.keras")
    assert names(written) == expected
    norms = {type(layer) for layer in written.layers if layer.name.endswith("_bn")}
    assert norms <= {keras.layers.BatchNormalization if "keras" in config else kerasbn.layers.BatchNormalization}


BAD_CONFIGS = {
    "positon = 'none'": "'position'",
    "lr-scal = 5": "'lr_scale'",
    "position = 'middle'": "'middle'",
    "rules = [['a', 'middle']]": "GLOB=POSITION",
    "rules = 'a=after'": "must be a list",
    "rates = [['a', 0]]": "GLOB=FACTOR",
    "decay_exclude = 'bias'": "must be a list",
    "norm = 'torch'": "'kerasbn', 'keras'",
    "lr_scale = true": "must be a number",
    "lr_scale = '5'": "must be a number",
    "lr_scale = -5": "-5",
    "opset = 18.5": "must be a whole number",
    "preserve = 1": "true or false",
    "layout = ['triton']": "must be a string",
    "lr_scale = 5\nlearning_rate_scale = 5": "twice",
    "copy = false": "cannot stand in a file. Pass it to kerasbn.rewrite",
    "force = true": "cannot stand in a file. Give it on the command line",
    "models = ['m.keras']": "Unknown option 'models'",
    "position = ": "TOML",
}


@pytest.mark.parametrize("config", BAD_CONFIGS)
def test_bad_config(config, command, tmp_path):
    (tmp_path / "options.toml").write_text(config)
    status, out, (error,) = command("m.keras", "-o", tmp_path / "new.keras", "--config", tmp_path / "options.toml")
    assert (status, out) == (2, "")
    assert str(tmp_path / "options.toml") in error
    assert BAD_CONFIGS[config] in error
    assert not (tmp_path / "new.keras").exists()


@pytest.mark.parametrize("flag", ["--calibrate", "--data"])
def test_quantize(flag, command, folder, tmp_path):
    np.save(tmp_path / "sample.npy", random_inputs(keras.models.load_model(folder / "m.keras"), 40))
    outputs = [tmp_path / name for name in ("new.onnx", "new.tflite")]
    arguments = [part for output in outputs for part in ("-o", output)]
    status, out, errors = command(
        *("m.keras", *arguments, "--json", "-q", "--quantize", "int8", flag, tmp_path / "sample.npy")
    )
    assert status == 0, errors
    reports = json.loads(out)["outputs"]
    assert [report["quantize"] for report in reports] == ["int8", "int8"]
    assert all(0 < report["max_error"] <= 0.1 for report in reports)
    assert all(output.is_file() for output in outputs)


@pytest.mark.parametrize("form", ["sample.npy", "sample.npz", "named.npz"])
def test_calibrate(form, command, folder, tmp_path):
    source = keras.models.load_model(folder / "m.keras")
    sample = np.random.default_rng(0).normal(3, 2, (64, *source.inputs[0].shape[1:])).astype("float32")
    np.save(tmp_path / "sample.npy", sample)
    np.savez(tmp_path / "sample.npz", sample)
    np.savez(tmp_path / "named.npz", **{source.inputs[0].name: sample})
    status, _, errors = command("m.keras", "-o", tmp_path / "new.keras", "--calibrate", tmp_path / form)
    assert (status, errors) == (0, [])
    written = keras.models.load_model(tmp_path / "new.keras")
    values = np.asarray(keras.Model(written.inputs, written.get_layer("a").output)(sample))
    np.testing.assert_allclose(written.get_layer("a_bn").moving_mean, values.mean(0), rtol=1e-4, atol=1e-5)
    assert_same_function(source, written)


def test_blended_statistics_and_frozen_layers(command, tmp_path):
    norms = [layers.BatchNormalization(name="bn"), layers.BatchNormalization(name="still", trainable=False)]
    source = randomize(keras.Sequential([keras.Input((6,), name="x"), *norms, layers.Dense(2)]))
    source.save(tmp_path / "m.keras")
    sample = np.random.default_rng(0).normal(3, 2, (64, 6)).astype("float32")
    np.save(tmp_path / "sample.npy", sample)
    status, out, _ = command(
        *(tmp_path / "m.keras", "-o", tmp_path / "new.keras", "--position", "none"),
        *("--calibrate", tmp_path / "sample.npy", "--blend", "0.25"),
    )
    assert status == 0
    assert "Frozen, so not calibrated: 'still'." in out
    written = keras.models.load_model(tmp_path / "new.keras")
    expected = 0.75 * np.asarray(source.get_layer("bn").moving_mean) + 0.25 * sample.mean(0)
    np.testing.assert_allclose(written.get_layer("bn").moving_mean, expected, rtol=1e-5)
    np.testing.assert_array_equal(written.get_layer("still").moving_mean, source.get_layer("still").moving_mean)


def _with_norm(seed):
    keras.utils.set_random_seed(seed)
    inner = [layers.Dense(4, name="dense"), layers.BatchNormalization(name="bn"), layers.ReLU()]
    inner += [layers.Dense(4, activation="relu", name="plain"), layers.Dense(2, name="head")]
    return randomize(keras.Sequential([keras.Input((6,), name="x"), *inner], name="net"))


def test_average(command, tmp_path):
    members = [_with_norm(seed) for seed in range(3)]
    for number, each in enumerate(members):
        each.save(tmp_path / f"{number}.keras")
    sample = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    np.save(tmp_path / "sample.npy", sample)
    paths = [tmp_path / f"{number}.keras" for number in range(3)]
    new = tmp_path / "new.keras"
    assert command(*paths, "--average", "-o", new)[0] == 2
    options = ("--position", "none", "--calibrate", tmp_path / "sample.npy")
    status, out, errors = command(*paths, "--average", "-o", new, *options)
    assert (status, errors) == (0, [])
    assert "Averaged with" in out
    assert_same_function(kerasbn.average(members, sample), keras.models.load_model(new))
    status, _, errors = command(*paths, "--average", "-o", paths[2], *options, "--force")
    assert (status, "2.keras" in " ".join(errors)) == (2, True)


def test_freeze(command, tmp_path):
    source = _with_norm(0)
    source.save(tmp_path / "m.keras")
    freeze = ("--freeze", "bn", "--freeze-statistics", "plain_*")
    status, out, errors = command(tmp_path / "m.keras", "-o", tmp_path / "new.keras", *freeze)
    assert (status, errors) == (0, [])
    assert "Frozen (all): 'bn'." in out
    written = keras.models.load_model(tmp_path / "new.keras")
    assert not written.get_layer("bn").trainable
    assert written.get_layer("plain_bn").frozen_statistics
    assert_same_function(source, written)
    status, _, errors = command(tmp_path / "m.keras", "-o", tmp_path / "other.keras", "--freeze", "none_*")
    assert (status, "'none_*'" in " ".join(errors)) == (2, True)
    assert not (tmp_path / "other.keras").exists()


def test_data(command, folder, tmp_path):
    source = keras.models.load_model(folder / "m.keras")
    sample = np.random.default_rng(0).normal(3, 2, (64, *source.inputs[0].shape[1:])).astype("float32")
    np.save(tmp_path / "sample.npy", sample)
    status, _, errors = command("m.keras", "-o", tmp_path / "new.keras", "--data", tmp_path / "sample.npy")
    assert (status, errors) == (0, [])
    written, expected = keras.models.load_model(tmp_path / "new.keras"), kerasbn.rewrite(source, data=sample)
    assert_same_function(source, written)
    for one, other in zip(expected.weights, written.weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_force(command, tmp_path):
    for output in OUTPUTS:
        status, _, _ = command("m.keras", "-q", "--no-verify", "-o", tmp_path / output, "--position", "none")
        assert status == 0
    before = _content(tmp_path)
    status, _, errors = command("m.keras", "--force", *(part for name in OUTPUTS for part in ("-o", tmp_path / name)))
    assert (status, errors) == (0, [])
    after = _content(tmp_path)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in ("new.keras", "new.onnx", "new/saved_model.pb"))


def test_dry_run(command, folder, tmp_path):
    before = _content(folder)
    plan = str(kerasbn.plan(keras.models.load_model(folder / "m.keras")))
    status, out, errors = command("m.keras", "--dry-run")
    assert (status, errors, out.strip()) == (0, [], plan)
    status, out, errors = command("m.keras", "--dry-run", "-o", tmp_path / "new.onnx", "-o", tmp_path / "new.keras")
    assert (status, errors) == (0, [])
    assert plan in out
    assert "2 batch normalizations: 2 folded." in out
    figures = [line.split() for line in out.splitlines()[-2:]]
    assert figures == [
        ["onnx", "2", "2", "0", str(tmp_path / "new.onnx")],
        ["keras", "2", "0", "2", str(tmp_path / "new.keras")],
    ]
    assert _content(folder) == before
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_what_would_not_be_folded(command, tmp_path):
    source = keras.Sequential([keras.Input((6,), name="x"), layers.BatchNormalization(name="bn"), layers.ReLU()])
    randomize(source).save(tmp_path / "m.keras")
    _, out, _ = command(tmp_path / "m.keras", "--dry-run", "--json", "-o", tmp_path / "new.onnx")
    (output,) = json.loads(out)["forecasts"]
    (left,) = output.pop("left")
    assert left["site"] == "bn#0"
    assert (output["folded"], output["kept"]) == (0, {left["reason"]: 1})
    _, out, _ = command(tmp_path / "m.keras", "--dry-run", "-o", tmp_path / "new.onnx")
    assert f"skip: {left['reason']}" in out
    assert out.splitlines()[-1].split()[:4] == ["onnx", "0", "0", "1"]


@pytest.mark.parametrize("options", ["", "-q", "-v"])
def test_json(options, command, folder, tmp_path):
    status, out, _ = command("m.keras", "--json", "-o", tmp_path / "new.onnx", *options.split())
    report = json.loads(out)
    assert status == 0
    assert report["plan"] == json.loads(json.dumps(kerasbn.plan(keras.models.load_model(folder / "m.keras")).to_dict()))
    (output,) = report["outputs"]
    assert output["path"] == str(tmp_path / "new.onnx")
    assert output["bytes"] == (tmp_path / "new.onnx").stat().st_size
    assert 0 <= output["max_error"] <= 1e-4


@pytest.mark.parametrize(
    ("options", "output", "folded"),
    [("", "new.onnx", 2), ("", "new.keras", 0), ("--no-fold", "new.onnx", 0), ("--fold", "new.keras", 2)],
)
def test_folding(options, output, folded, command, folder, tmp_path):
    status, out, errors = command("m.keras", "--json", "-o", tmp_path / output, *options.split())
    assert (status, errors) == (0, [])
    (report,) = json.loads(out)["outputs"]
    assert (report["folded"], report["kept"]) == (folded, {})
    assert_serves(tmp_path / output, keras.models.load_model(folder / "m.keras"), ["x"], ["y"])
    if output == "new.keras":
        assert ("a_bn" in names(keras.models.load_model(tmp_path / output))) == (folded == 0)


# A layout, and the model's place in the folder.
LAYOUTS = {"tf_serving": "1/saved_model.pb", "triton": "1/model.onnx"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, command, tmp_path):
    copy, served = tmp_path / "copy.keras", tmp_path / "served"
    status, out, _ = command("m.keras", "-o", copy, "-o", served, "--layout", layout, "--json")
    assert (status, len(json.loads(out)["outputs"])) == (0, 2)
    assert copy.is_file()
    assert (served / LAYOUTS[layout]).is_file()


@pytest.mark.parametrize(("options", "left"), [([], "in total"), (["--no-merge-branches"], "in a b total")])
def test_merging(options, left, command, tmp_path):
    inputs = keras.Input((6,), name="in")
    branches = [layers.Dense(6, name=name)(inputs) for name in ("a", "b")]
    randomize(keras.Model(inputs, layers.Add(name="total")(branches))).save(tmp_path / "branches.keras")
    new = tmp_path / "new.keras"
    status, _, errors = command(tmp_path / "branches.keras", "--position", "none", "--fold", "-o", new, *options)
    assert (status, errors) == (0, [])
    assert names(keras.models.load_model(new)) == left


def test_json_of_a_dry_run(command):
    status, out, _ = command("m.keras", "--json", "--dry-run")
    assert status == 0
    assert json.loads(out)["outputs"] == []
    assert json.loads(out)["plan"]["model"] == "net"


def test_reports(command, folder, tmp_path):
    page, data, copy, served = (tmp_path / name for name in ("a.html", "a.json", "copy.keras", "new.onnx"))
    status, out, errors = command(
        "m.keras", "-o", copy, "-o", served, "--report", page, "--report", data, "--json", "-q"
    )
    assert (status, errors) == (0, [])
    report = json.loads(data.read_text())
    assert report == json.loads(out)
    assert report["source"] == "m.keras"
    assert 0 <= report["max_error"] <= 1e-5
    assert [output["path"] for output in report["outputs"]] == [str(copy), str(served)]
    html = page.read_text("utf-8")
    for told in ("Report on m.keras", "Verified: the rewritten", str(copy), str(served), "Folded for new.onnx"):
        assert told in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.json", "copy.keras", "new.onnx"]


def test_reports_of_a_dry_run(command, tmp_path):
    (tmp_path / "a.html").write_text("old")
    status, _, errors = command(
        "m.keras", "--dry-run", "--force", "--report", tmp_path / "a.html", "--report", tmp_path / "a.json"
    )
    assert (status, errors) == (0, [])
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["outputs"], report["forecasts"]) == ([], [])
    assert "Report on m.keras" in (tmp_path / "a.html").read_text("utf-8")


def test_no_report_is_left_of_what_fails(command, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise kerasbn.VerificationError("wrong")

    (tmp_path / "old.html").write_text("old")
    monkeypatch.setattr(onnx_file, "write", fail)
    status, _, _ = command(
        *("m.keras", "-o", tmp_path / "copy.keras", "-o", tmp_path / "new.onnx", "--force"),
        *("--report", tmp_path / "old.html", "--report", tmp_path / "a.json"),
    )
    assert status == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "old"


def test_no_report_is_left_where_one_fails(command, monkeypatch, tmp_path):
    """What was written and verified before stays."""

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(reporting, "page", fail)
    status, _, errors = command(
        *("m.keras", "-o", tmp_path / "new.onnx", "--report", tmp_path / "a.json", "--report", tmp_path / "a.html")
    )
    assert status == 2
    assert "a.html" in errors[0]
    assert "disk full" in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["new.onnx"]


def test_reports_on_several(command, tmp_path):
    page, data = tmp_path / "a.html", tmp_path / "a.json"
    status, _, errors = command(
        *("m.keras", "short.keras", "plain.keras", "-o", tmp_path / "out", "--report", page, "--report", data)
    )
    assert status == 2
    assert len(errors) == 1
    report = json.loads(data.read_text())
    assert [("error" in each, each["source"]) for each in report["models"]] == [
        (True, "short.keras"),
        (False, "m.keras"),
        (False, "plain.keras"),
    ]
    assert report["models"][0]["error"] in errors[0]
    html = page.read_text("utf-8")
    for told in ("Report on 3 models", "Failed:", "plain.keras"):
        assert told in html


def test_quiet(command, tmp_path):
    assert command("m.keras", "-q", "-o", tmp_path / "new.keras") == (0, "", [])


def test_verbose_prints_the_plan(command, folder, tmp_path):
    _, out, _ = command("m.keras", "-v", "--no-verify", "-o", tmp_path / "new.keras")
    assert str(kerasbn.plan(keras.models.load_model(folder / "m.keras"))) in out
    assert out.split()[-2:] == ["unverified", str(tmp_path / "new.keras")]


def test_paths_are_printed_as_they_are(command, tmp_path):
    (tmp_path / "a[").mkdir()
    path = tmp_path / "a[" / "]:smile:[red].keras"
    status, out, _ = command("m.keras", "-o", path)
    assert status == 0
    assert str(path) in out


def _running_wrong(path):
    return lambda inputs: {"y": np.zeros((len(inputs["x"]), 3))}


def _changed(plan):
    model = _APPLIED(plan)
    model.get_layer("y").bias.assign_add([0.0, 0.0, 1.0])
    return model


def _interrupted(*args, **kwargs):
    raise KeyboardInterrupt


_APPLIED = planner.applied

# What to break, by what, the exit status, and a part of the message.
FAILURES = {
    "the written model": (onnx_file, "runner", _running_wrong, 1, "new.onnx"),
    "the rewritten model": (planner, "applied", _changed, 1, "the rewritten model"),
    "interrupted while reading": (job, "read", _interrupted, 130, "interrupted"),
    "interrupted while writing": (onnx_file, "write", _interrupted, 130, "interrupted"),
}


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("case", FAILURES)
def test_failures_leave_the_old_files(case, old, command, folder, tmp_path, monkeypatch):
    if old:
        (tmp_path / "new.keras").write_text("old")
        (tmp_path / "new.onnx").write_text("old")
    before = _content(folder), _content(tmp_path)
    broken, attribute, stand_in, expected, message = FAILURES[case]
    monkeypatch.setattr(broken, attribute, stand_in)
    status, out, errors = command("m.keras", "--force", *("-o", tmp_path / "new.keras", "-o", tmp_path / "new.onnx"))
    assert (status, out) == (expected, "")
    assert len(errors) == 1
    assert message in errors[0]
    assert (_content(folder), _content(tmp_path)) == before


def test_what_is_not_verified_is_not_checked(command, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "runner", _running_wrong)
    status, out, _ = command("m.keras", "--no-verify", "-o", tmp_path / "new.onnx")
    assert status == 0
    assert out.split()[-2] == "unverified"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_other_precisions(policy, command, tmp_path):
    model = keras.Sequential([keras.Input((6,)), *(layers.Dense(8, "relu", dtype=policy) for _ in range(3))])
    randomize(model).save(tmp_path / "half.keras")
    status, _, errors = command(tmp_path / "half.keras", "-o", tmp_path / "new.keras", "-o", tmp_path / "new.onnx")
    assert (status, errors) == (0, [])


def test_several_models(command, folder, tmp_path):
    before = _content(folder)
    new = tmp_path / "new"
    status, out, errors = command("m.keras", "plain.keras", "-o", new, "--format", "onnx", "--format", "keras")
    assert (status, errors) == (0, [])
    assert sorted(path.name for path in new.iterdir()) == ["m.keras", "m.onnx", "plain.keras", "plain.onnx"]
    assert all(str(path) in out for path in new.iterdir())
    for path in new.iterdir():
        assert_serves(path, keras.models.load_model(folder / "m.keras"), ["x"], ["y"])
    assert _content(folder) == before
    # each as in a run of its own
    assert command("plain.keras", "-q", "-o", tmp_path / "alone.onnx")[0] == 0
    assert (tmp_path / "alone.onnx").read_bytes() == (new / "plain.onnx").read_bytes()


def test_nothing_is_written_into_the_folder_of_a_model(tmp_path):
    with pytest.raises(kerasbn.OptionError, match="never touched"):
        Output(tmp_path / "new.onnx", "onnx").check(tmp_path, overwrite=True)


def test_a_format_makes_a_folder_of_one_output_too(command, tmp_path):
    assert command("m.keras", "-q", "-o", tmp_path / "new", "--format", "keras") == (0, "", [])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.keras"]


@pytest.mark.parametrize(
    ("layout", "formats", "expected"),
    [
        ("triton", [], ["m/1/model.onnx", "plain/1/model.onnx"]),
        ("triton", ["keras", "onnx"], ["m.keras", "m/1/model.onnx", "plain.keras", "plain/1/model.onnx"]),
    ],
)
def test_a_repository_for_a_model_server(layout, formats, expected, command, tmp_path):
    options = [part for each in formats for part in ("--format", each)]
    status, _, errors = command("m.keras", "plain.keras", "-o", tmp_path / "new", "--layout", layout, *options)
    assert (status, errors) == (0, [])
    assert all((tmp_path / "new" / path).is_file() for path in expected)


# Models that fail beside one that does not, by the exit status and a part of each message.
FAILING = {
    "before Keras is imported": ("missing.keras old.onnx", 2, ["'missing.keras' does not exist", "'old.onnx' is"]),
    "a name that is too long": (f"{'n' * 300}.keras old.onnx", 2, ["n.keras' does not exist", "'old.onnx' is"]),
    "while they are read": ("custom.keras lambda.keras", 2, ["'_Unregistered'", "--unsafe"]),
    "in their options": ("strings.keras", 2, ["'strings.keras': ", "matches no layer"]),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("case", FAILING)
def test_what_fails_does_not_stop_the_others(case, as_json, command, tmp_path):
    models, expected, messages = FAILING[case]
    options = ["--rule", "a=after", *(["--json"] if as_json else [])]
    status, out, errors = command(*models.split(), "m.keras", "-o", tmp_path / "new", *options)
    assert status == expected
    assert len(errors) == len(models.split())
    assert all(any(message in error for error in errors) for message in messages)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.keras"]
    assert as_json or f"1 of {len(models.split()) + 1} models done" in out
    if as_json:
        told = json.loads(out)["models"]
        assert [each["source"] for each in told] == [*models.split(), "m.keras"]
        assert [each.get("status") for each in told] == [2] * len(models.split()) + [None]


def test_a_verification_that_fails_beside_a_bad_file(command, tmp_path, monkeypatch):
    monkeypatch.setattr(planner, "applied", _changed)
    status, _, errors = command("m.keras", "plain.keras", "-o", tmp_path / "new")
    assert (status, len(errors)) == (1, 2)
    assert errors[0].startswith("kerasbn-rewrite: 'm.keras': Output 'y' of the rewritten model ")
    status, _, errors = command("m.keras", "text.keras", "-o", tmp_path / "new")
    assert (status, len(errors)) == (2, 2)
    assert not (tmp_path / "new").exists()


def test_what_exists_is_one_models_failure(command, tmp_path):
    (tmp_path / "m.keras").write_text("old")
    status, _, (error,) = command("m.keras", "plain.keras", "-o", tmp_path)
    assert status == 2
    assert "--force" in error
    assert (tmp_path / "m.keras").read_text() == "old"
    assert (tmp_path / "plain.keras").is_file()


@pytest.mark.parametrize(
    ("stop", "status", "word"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "terminated"),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130, "interrupted"),
    ],
)
def test_signals(stop, status, word, command, tmp_path, monkeypatch):
    """What is under way is cleaned up, what was done before stays."""
    write = onnx_file.write

    def stopped(model, interface, path, settings):
        write(model, interface, path, settings)
        if path.name == "plain.onnx":
            stop()
            time.sleep(60)
        return 1

    monkeypatch.setattr(onnx_file, "write", stopped)
    got = command("m.keras", "plain.keras", "-q", "-o", tmp_path / "new", "--format", "onnx")
    assert got == (status, "", [f"kerasbn-rewrite: {word}; nothing more was written."])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.onnx"]


def _ended_twice(first, second, cleaned):
    with signals.ended_by_signals():
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(second)
            cleaned.append(True)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("first", "kind"), [(signal.SIGTERM, signals.Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_cleaning_up_is_not_interrupted(first, kind, second):
    cleaned = []
    with pytest.raises(KeyboardInterrupt) as raised:
        _ended_twice(first, second, cleaned)
    assert (raised.type, cleaned) == (kind, [True])


def test_cleaning_up_that_hangs_can_be_ended(monkeypatch):
    monkeypatch.setattr(signals, "PATIENCE", 0.0)
    cleaned = []
    with pytest.raises(signals.Terminated):
        _ended_twice(signal.SIGINT, signal.SIGTERM, cleaned)
    assert not cleaned


def test_ctrl_c_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.ended_by_signals():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_break_is_a_signal_to_end_where_there_is_one(monkeypatch):
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt), signals.ended_by_signals():
        signal.raise_signal(signal.SIGBREAK)
    assert signal.getsignal(signal.SIGUSR1) == before


def _option_values(flag):
    return next(each for each in main.command.params if flag in each.opts).type.choices


@pytest.mark.parametrize("flag", ["--position", "--format", "--recipe"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, flag, monkeypatch, capsys):
    def completed(what, **words):
        for name, value in {"_KERASBN_REWRITE_COMPLETE": f"{shell}_{what}", **words}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            main._status()
        assert end.value.code == 0
        return capsys.readouterr().out

    assert "kerasbn-rewrite" in completed("source")
    incomplete = "" if shell == "fish" else "2"
    offered = completed("complete", COMP_WORDS=f"kerasbn-rewrite {flag} ", COMP_CWORD=incomplete)
    assert all(str(value) in offered for value in _option_values(flag))


def test_the_version(command):
    assert command("--version")[1].split()[-1] == kerasbn.__version__


def test_every_option_has_a_subject_and_a_key_in_files():
    options = [each for each in main.command.params if isinstance(each, click.Option)]
    assert all(each.subject for each in options if each.name != "version")
    assert set(config.OF_ONE_RUN) - {"help"} <= {each.name for each in options}


@pytest.mark.parametrize(("variable", "coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False), ("ELSE", False)])
def test_colours_elsewhere_than_in_a_terminal(variable, coloured, command, monkeypatch):
    """What goes into a pipe is as wide as it takes, in colours or not."""
    monkeypatch.setenv(variable, "1")
    _, out, _ = command("m.keras", "--dry-run")
    assert ("\x1b[" in out) == coloured
    assert "'a_bn' (BatchNormalization) before relu; the bias becomes its beta" in out
    assert ("\x1b[1mInput" in command("--help")[1]) == coloured


def test_diagnose(command, folder):
    norm = layers.BatchNormalization(name="bn")
    randomize(keras.Sequential([keras.Input((4,)), norm, layers.Dense(2)])).save(folder / "normalized.keras")
    np.save(folder / "sample.npy", np.random.default_rng(0).normal(size=(64, 4)).astype("float32"))
    before = _content(folder)
    status, out, err = command("normalized.keras", "--diagnose", "--data", "sample.npy")
    assert (status, err) == (0, [])
    assert "statistics" in out
    assert "kerasbn.calibrate(model, data)" in out
    told = json.loads(command("normalized.keras", "--diagnose", "--data", "sample.npy", "--json")[1])
    assert told["source"] == "normalized.keras"
    assert "statistics" in told["diagnosis"]["counts"]
    assert _content(folder) == before
    assert command("normalized.keras", "--diagnose", "--report", "a.json", "--report", "a.html")[0] == 0
    written = json.loads((folder / "a.json").read_text())
    assert written["diagnosis"] == kerasbn.diagnose(keras.models.load_model(folder / "normalized.keras")).to_dict()
    assert "Diagnosis of" in (folder / "a.html").read_text()
    status, _, err = command("normalized.keras", "--diagnose", "--report", "a.json")
    assert (status, "exists already" in " ".join(err)) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("m.keras --diagnose -o a.keras", "-o"),
        ("m.keras --diagnose --report a.txt", "'.txt'"),
        ("missing.keras --diagnose", "'missing.keras' does not exist"),
        ("m.keras --diagnose --data broken.npy", "broken.npy"),
        ("m.keras --diagnose --data narrow.npy", "does not fit"),
    ],
)
def test_what_cannot_be_diagnosed(command, arguments, message):
    status, out, err = command(*arguments.split())
    assert (status, out) == (2, "")
    assert message in " ".join(err)
