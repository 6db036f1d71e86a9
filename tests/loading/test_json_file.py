"""Architectures in JSON with their weights beside them; TensorFlow.js's as its documentation has them."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

from kerasbn import ModelFileError, load
from kerasbn.loading.hdf5 import layers_of
from kerasbn.loading.load import read
from tests.helpers import assert_same_function, randomize
from tests.loading.test_keras2 import _outputs, _recorded, unpacked  # noqa: F401

pytestmark = pytest.mark.tensorflow


def _quantized(value, dtype):
    if dtype is None:
        return value.tobytes(), {}
    if dtype == "float16":
        return value.astype("float16").tobytes(), {"quantization": {"dtype": "float16", "original_dtype": "float32"}}
    low, steps = float(value.min()), 2 ** (8 * np.dtype(dtype).itemsize) - 1
    scale = (float(value.max()) - low) / steps or 1.0
    stored = np.rint((value - low) / scale).astype(dtype)
    quantization = {"dtype": dtype, "min": low, "scale": scale, "original_dtype": "float32"}
    return stored.tobytes(), {"quantization": quantization}


def _as_tensorflow_js(folder, dtype=None, *, of_javascript=False):
    """The weights of a family's `.h5` file in two shards, with `model.json`.

    JavaScript saves what is not trained last, Python layer by layer.
    """
    import h5py

    with h5py.File(folder / "model.h5") as file:
        topology = {"keras_version": "2.21.0", "backend": "tensorflow"}
        topology["model_config"] = json.loads(file.attrs["model_config"])
        weights = [weight for each in layers_of(file["model_weights"]).values() for weight in each]
    if of_javascript:
        weights.sort(key=lambda weight: "moving_" in weight.name)
    content, specs = b"", []
    for name, value in weights:
        stored, quantization = _quantized(value, dtype)
        content += stored
        specs.append({"name": name, "shape": list(value.shape), "dtype": "float32", **quantization})
    target = folder / f"js-{dtype}"
    target.mkdir(exist_ok=True)
    half = len(content) // 2 + 1
    paths = ["group1-shard1of2.bin", "group1-shard2of2.bin"]
    (target / paths[0]).write_bytes(content[:half])
    (target / paths[1]).write_bytes(content[half:])
    manifest = [{"paths": paths, "weights": specs}]
    description = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    (target / "model.json").write_text(json.dumps(description))
    return target / "model.json"


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-5), ("float16", 5e-3), ("uint16", 1e-3), ("uint8", 0.05)])
@pytest.mark.parametrize("family", ["conv", "lstm", "bidirectional", "batch_normalization", "nested", "frozen"])
def test_tensorflow_js(family, dtype, tolerance, unpacked):  # noqa: F811
    inputs, expected = _recorded(unpacked(family))
    with pytest.warns(UserWarning, match="Keras 2"):
        model = load(_as_tensorflow_js(unpacked(family), dtype))
    for output, other in zip(_outputs(model, inputs), expected, strict=True):
        assert np.abs(output - other).max() <= tolerance * max(1.0, np.abs(other).max())


@pytest.mark.parametrize("family", ["batch_normalization", "compiled"])
def test_tensorflow_js_that_javascript_wrote(family, unpacked):  # noqa: F811
    inputs, expected = _recorded(unpacked(family))
    model = read(_as_tensorflow_js(unpacked(family), of_javascript=True)).model
    np.testing.assert_allclose(_outputs(model, inputs)[0], expected[0], atol=1e-5)


def _changed(unpacked, change):  # noqa: F811
    path = _as_tensorflow_js(unpacked("lstm"), "float16")
    content = json.loads(path.read_text())
    change(content, content["weightsManifest"][0])
    path.write_text(json.dumps(content))
    return path


SHARDS = {
    "above": (lambda content, group: group.update(paths=["../model.h5"]), "'../model.h5' are not beside it"),
    "elsewhere": (lambda content, group: group.update(paths=["/etc/passwd"]), "not beside it"),
    "missing": (lambda content, group: group.update(paths=["none.bin"]), "'none.bin' are missing"),
    "too few": (lambda content, group: group["paths"].pop(), "cut short"),
    "too large": (lambda content, group: group["weights"][0].update(shape=[10**6, 10**6]), "cut short"),
    "strings": (lambda content, group: group["weights"][0].update(dtype="string", quantization={}), "'string'"),
    "another shape": (lambda content, group: group["weights"][0]["shape"].reverse(), "layer 'lstm'"),
    "a weight less": (lambda content, group: group["weights"].pop(), "layer 'lstm_1'"),
    "a graph": (lambda content, group: content.update(format="graph-model"), "graph model"),
}


@pytest.mark.parametrize("case", SHARDS)
def test_what_is_wrong_with_shards(case, unpacked):  # noqa: F811
    change, message = SHARDS[case]
    with pytest.raises(ModelFileError, match=re.escape(message)):
        load(_changed(unpacked, change))


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_an_architecture_of_keras_3(suffix, tmp_path):
    model = randomize(keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()]))
    (tmp_path / "model.json").write_text(model.to_json())
    weights = tmp_path / f"model{suffix}"
    model.save_weights(weights) if suffix == ".weights.h5" else model.save(weights)
    assert_same_function(model, load(tmp_path / "model.json", weights=weights), tolerance=0)


def test_weights_and_architectures_belong_together(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    (tmp_path / "model.json").write_text(model.to_json())
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ModelFileError, match="--weights"):
        load(tmp_path / "model.json")
    with pytest.raises(ModelFileError, match="holds its weights itself"):
        load(tmp_path / "model.keras", weights=tmp_path / "model.weights.h5")
    with pytest.raises(ModelFileError, match="do not exist"):
        load(tmp_path / "model.json", weights=tmp_path / "none.h5")
    with pytest.raises(ModelFileError, match="weights="):
        load(tmp_path / "model.weights.h5")
