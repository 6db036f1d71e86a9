"""Files of Keras 2, each with what Keras 2 computed: `tools/make_keras2_files.py` made them."""

import base64
import json
import marshal
import pathlib
import shutil
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kerasbn import ModelFileError
from kerasbn.cli import main
from kerasbn.loading.load import read

pytestmark = pytest.mark.tensorflow
FOLDER = pathlib.Path(__file__).parent / "keras2"
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.zip"))
REFUSED = {
    "refused_argument": ("'by_time'", "time_major"),
    "refused_code": ("'double'", "--unsafe"),
    "refused_layer": ("'threshold'", "'ThresholdedReLU'"),
    "refused_operation": ("'tf.math.betainc'", "tf.math.betainc"),
}
KINDS = ("model.h5", "model.keras", "model", "model.json")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Gives the folder with the files of a family."""
    root = tmp_path_factory.mktemp("keras2")

    def unpack(family):
        folder = root / family
        if not folder.exists():
            with zipfile.ZipFile(FOLDER / f"{family}.zip") as archive:
                archive.extractall(folder)
        return folder

    return unpack


def _read(folder, kind, **options):
    weights = folder / "model.weights.h5" if kind == "model.json" else None
    return read(folder / kind, weights=weights, **options)


def _recorded(folder):
    """Inputs as the model takes them, and outputs."""
    content = np.load(folder / "model.npz")
    inputs = {name.removeprefix("input_"): content[name] for name in content if name.startswith("input_")}
    inputs = {
        name: keras.ops.convert_to_tensor(value.tolist() if value.dtype.kind == "U" else value)
        for name, value in inputs.items()
    }
    return inputs, [content[name] for name in content if name.startswith("output_")]


def _outputs(model, inputs):
    structure = model.inputs if isinstance(model, keras.Sequential) else model.input
    given = inputs if isinstance(structure, dict) else list(inputs.values())
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(model(given, training=False))]


def _is_kept_elsewhere(family, kind):
    """Whether what a lookup learnt is not where it could be read."""
    return family == "strings_adapted" and kind == "model.json"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in REFUSED])
def test_computes_the_same(family, kind, unpacked):
    folder = unpacked(family)
    if family == "strings_adapted" and kind == "model.h5":
        pytest.skip("Keras 2 cannot write it")
    if _is_kept_elsewhere(family, kind):
        with pytest.raises(ModelFileError, match="'string_lookup'"):
            _read(folder, kind)
        return
    inputs, expected = _recorded(folder)
    outputs = _outputs(_read(folder, kind).model, inputs)
    for output, other in zip(outputs, expected, strict=True):
        assert np.abs(output - other).max() <= 1e-5 * max(1.0, np.abs(other).max())


@pytest.mark.parametrize("family", ["categories", "strings", "strings_adapted", "text"])
def test_words_that_are_not_in_the_graph(family, unpacked, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(unpacked(family) / "model", folder)
    graphs = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for node in graphs.meta_graphs[0].graph_def.node:
        for dimension in node.attr["value"].tensor.tensor_shape.dim:
            dimension.size = 10**12
    (folder / "saved_model.pb").write_bytes(graphs.SerializeToString())
    with pytest.raises(ModelFileError, match="more than there is room for"):
        read(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelFileError, match="damaged"):
        read(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", REFUSED)
def test_refused_by_name(family, kind, unpacked):
    with pytest.raises(ModelFileError) as caught:
        _read(unpacked(family), kind)
    for part in REFUSED[family]:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


class OfMine(keras.layers.Dense):
    """A layer that someone has written for Keras 2, and now for Keras 3."""


@pytest.mark.parametrize("kind", ["model.h5", "model.json"])
def test_layers_of_ones_own(kind, unpacked, tmp_path):
    folder = tmp_path / "dense"
    shutil.copytree(unpacked("dense"), folder)
    if kind == "model.json":
        text = (folder / kind).read_text()
        (folder / kind).write_text(text.replace('"Dense"', '"Custom>OfMine"'))
        with h5py.File(folder / "model.weights.h5", "r+") as file:
            (layers,) = (file[name] for name in file if any(each.startswith("dense") for each in file[name]))
            for name in [name for name in layers if name.startswith("dense")]:
                layers.move(name, name.replace("dense", "of_mine"))
    else:
        with h5py.File(folder / kind, "r+") as file:
            file.attrs["model_config"] = file.attrs["model_config"].replace('"Dense"', '"Custom>OfMine"')
    with pytest.raises(ModelFileError, match="--custom-objects MODULE:OfMine"):
        _read(folder, kind)
    model = _read(folder, kind, custom_objects={"OfMine": OfMine}).model
    assert any(isinstance(layer, OfMine) for layer in model.layers)
    inputs, (expected,) = _recorded(folder)
    np.testing.assert_allclose(_outputs(model, inputs)[0], expected, atol=1e-6)


def test_names_of_large_models(unpacked, tmp_path):
    """HDF5 has 64 KB for an attribute, so that Keras puts long lists into several."""
    path = tmp_path / "model.h5"
    shutil.copy(unpacked("dense") / "model.h5", path)
    with h5py.File(path, "r+") as file:
        for group, attribute in [
            (file["model_weights"], "layer_names"),
            *((group, "weight_names") for group in file["model_weights"].values() if "weight_names" in group.attrs),
        ]:
            names = group.attrs[attribute]
            del group.attrs[attribute]
            group.attrs[f"{attribute}0"], group.attrs[f"{attribute}1"] = names[:1], names[1:]
    inputs, (expected,) = _recorded(unpacked("dense"))
    np.testing.assert_allclose(_outputs(read(path).model, inputs)[0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_what_it_was_compiled_with_comes_along(kind, unpacked):
    model, notes = _read(unpacked("compiled"), kind)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.iterations) == 4
    assert model.optimizer.beta_1 == pytest.approx(0.8)
    assert keras.losses.get(model.loss) is keras.losses.mean_squared_error
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.01 * 0.5**0.4, rtol=1e-6)
    slots = [each for each in model.optimizer.variables if "momentum" in each.path]
    assert len(slots) == 6
    assert all(np.abs(keras.ops.convert_to_numpy(each)).max() > 0 for each in slots)
    assert not [note for note in notes if "afresh" in note or "compiled" in note]
    model.evaluate(np.zeros((4, 4)), np.zeros((4, 2)), verbose=0)
    assert [metric.name for metric in model._compile_metrics.metrics] == ["mae"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_frozen_stays_so(kind, unpacked):
    model = _read(unpacked("frozen"), kind).model
    assert [layer.trainable for layer in model.layers] == [True, False, False, True]


def test_the_outcome_is_keras_3(unpacked, tmp_path):
    """It can be saved and read again, operations included."""
    inputs, expected = _recorded(unpacked("operations"))
    _read(unpacked("operations"), "model.h5").model.save(tmp_path / "model.keras")
    (output,) = _outputs(read(tmp_path / "model.keras").model, inputs)
    np.testing.assert_allclose(output, expected[0], atol=1e-5)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("conv", ["It is of Keras 2"]),
        ("operations", ["It is of Keras 2", " of TensorFlow's functions are operations"]),
        ("compiled", ["It is of Keras 2"]),
    ],
)
def test_the_command_says_what_it_mended(family, said, unpacked, tmp_path, monkeypatch, capsys):
    path, output = unpacked(family) / "model.h5", tmp_path / "out.keras"
    monkeypatch.setattr(sys, "argv", ["kerasbn-rewrite", str(path), "-o", str(output), "--position", "none"])
    assert main._status() == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(path))]
    assert all(part in line for part, line in zip(said, shown, strict=True))
    inputs, expected = _recorded(unpacked(family))
    np.testing.assert_allclose(_outputs(read(output).model, inputs)[0], expected[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["model.h5", "model.json"])
def test_code_that_is_trusted(kind, unpacked):
    """With code of the Python that runs here: that of another one is another."""
    folder = unpacked("refused_code")
    code = base64.b64encode(marshal.dumps((lambda x: 2 * x).__code__)).decode()
    if kind == "model.h5":
        with h5py.File(folder / kind, "r+") as file:
            file.attrs["model_config"] = _with_code(file.attrs["model_config"], code)
    else:
        (folder / kind).write_text(_with_code((folder / kind).read_text(), code))
    inputs, expected = _recorded(folder)
    model = _read(folder, kind, safe=False).model
    np.testing.assert_allclose(_outputs(model, inputs)[0], expected[0], rtol=1e-5)


def _with_code(config, code):
    content = json.loads(config)
    (entry,) = [each["config"] for each in content["config"]["layers"] if each["class_name"] == "Lambda"]
    if isinstance(entry["function"], list):
        entry["function"][0] = code
    else:
        entry["function"]["config"]["code"] = code
    return json.dumps(content)


def test_operations_are_not_called_as_layers_are(unpacked):
    """Keras counts its operations' names from the start in a fresh process."""
    keras.backend.clear_session()
    _read(unpacked("masks"), "model.h5")
    keras.backend.clear_session()
    _read(unpacked("operations"), "model.h5")
