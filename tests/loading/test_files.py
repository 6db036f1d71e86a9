"""Model files, and what is wrong with those that are none."""

import json
import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from packaging.version import Version

import kerasbn
from kerasbn import ModelFileError, load
from kerasbn.loading.kinds import kind_of
from tests.helpers import assert_same_function, randomize

WRITTEN = pathlib.Path(__file__).parent / "written"


def _model(*further):
    return randomize(keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), *further]))


class _Unregistered(layers.Layer):
    def call(self, inputs):
        return inputs


def _double(x):
    return 2 * x


def _saved(path, *further):
    _model(*further).save(path)


def _cut_short(path):
    _saved(path)
    path.write_bytes(path.read_bytes()[:5000])


def _text(path):
    path.write_text("not a model")


def _archive_of_something(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "not a model")


def _archive_with_a_hole(path):
    _saved(path)
    content = bytearray(path.read_bytes())
    start = content.index(b"model.weights.h5") + 200
    content[start : start + 3000] = bytes(3000)
    path.write_bytes(content)


def _config_of_nonsense(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Nonsense"}))


def _hdf5_of_something(path):
    with h5py.File(path, "w") as file:
        file["letter"] = [1, 2]


def _weights_alone(path):
    _model().save_weights(path)


# A file's name, how it is made, and a part of the message.
BROKEN = {
    "missing": ("missing.keras", lambda path: None, "does not exist"),
    "missing, no suffix": ("missing", lambda path: None, "does not exist"),
    "a folder": ("folder.keras", lambda path: path.mkdir(), "is a folder"),
    "other suffix": ("model.pt", _text, "file of torch's"),
    "empty": ("model.keras", lambda path: path.touch(), "not a .keras archive"),
    "text": ("model.keras", _text, "not a .keras archive"),
    "cut short": ("model.keras", _cut_short, "cut short"),
    "an archive of something": ("model.keras", _archive_of_something, "config.json"),
    "a hole": ("model.keras", _archive_with_a_hole, "cannot be loaded"),
    "nonsense": ("model.keras", _config_of_nonsense, "cannot be loaded"),
    "empty, h5": ("model.h5", lambda path: path.touch(), "not an HDF5 file"),
    "text, h5": ("model.hdf5", _text, "not an HDF5 file"),
    "cut short, h5": ("model.h5", _cut_short, "cannot be loaded"),
    "something, h5": ("model.h5", _hdf5_of_something, "No model config"),
    "weights alone": ("model.weights.h5", _weights_alone, "No model config"),
    "code": ("model.keras", lambda path: _saved(path, layers.Lambda(lambda x: 2 * x)), "--unsafe"),
    "code, h5": ("model.h5", lambda path: _saved(path, layers.Lambda(lambda x: 2 * x)), "--unsafe"),
    "unregistered layer": ("model.keras", lambda path: _saved(path, _Unregistered()), "_Unregistered"),
    "unregistered layer, h5": ("model.h5", lambda path: _saved(path, _Unregistered()), "_Unregistered"),
    "unregistered function": ("model.keras", lambda path: _saved(path, layers.Activation(_double)), "_double"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken(case, tmp_path):
    name, make, message = BROKEN[case]
    path = tmp_path / name
    make(path)
    with pytest.raises(ModelFileError) as caught:
        load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
@pytest.mark.parametrize(
    "further",
    [
        lambda: (),
        lambda: (layers.BatchNormalization(),),
        lambda: (kerasbn.layers.BatchNormalization(),),
    ],
    ids=["dense", "keras bn", "kerasbn bn"],
)
def test_sound(suffix, further, tmp_path):
    model = _model(*further())
    model.save(tmp_path / f"model{suffix}")
    kind_of(tmp_path / f"model{suffix}")
    assert_same_function(model, load(tmp_path / f"model{suffix}"), tolerance=0)


def _masked():
    inputs = keras.Input((5, 3))
    return keras.Model(inputs, layers.Dense(2)(layers.LSTM(4)(layers.Masking()(inputs))))


def _embedded():
    inputs = keras.Input((5,), dtype="int32")
    return keras.Model(inputs, layers.Bidirectional(layers.GRU(4))(layers.Embedding(7, 3, mask_zero=True)(inputs)))


def _operations():
    """Operations and layers of one name, with numbers among their arguments, in a model inside too."""
    ops, one, other = keras.ops, keras.Input((4,)), keras.Input((4,))
    x = ops.add(one, layers.Add()([one, other])) * 2.0
    x = ops.reshape(layers.Reshape((2, 2))(x), (-1, 4))
    x = ops.concatenate([layers.ReLU()(x), ops.relu(x), keras.activations.leaky_relu(x)], axis=-1)
    inner = keras.Model([one, other], layers.Dense(3)(ops.gelu(x)), name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(inner([inputs, ops.multiply(inputs, 2.0)])))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("make", [_masked, _embedded, _operations])
def test_operations(make, suffix, tmp_path):
    """Keras 3 writes them into its `.h5` files, and does not read them."""
    source = randomize(make())
    source.compile("adam", "mse")
    source.save(tmp_path / f"source{suffix}")
    loaded = load(tmp_path / f"source{suffix}")
    assert_same_function(source, loaded, tolerance=0.0)
    assert isinstance(loaded.optimizer, keras.optimizers.Adam)
    kerasbn.rewrite(loaded).save(tmp_path / f"result{suffix}")
    assert_same_function(kerasbn.rewrite(loaded), load(tmp_path / f"result{suffix}"), tolerance=1e-6)


class Steady(keras.optimizers.schedules.LearningRateSchedule):
    """One of the user's own."""

    def __call__(self, step):
        return 0.01

    def get_config(self):
        return {}


OPTIMIZERS = {
    "the user's schedule": (lambda: keras.optimizers.Adam(Steady()), {}),
    "Adam": (lambda: keras.optimizers.Adam(0.01), {}),
    "a schedule": (lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)), {}),
    "averages": (lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True), {}),
    "scaled": (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9)), {}),
    "weight by weight": (lambda: keras.optimizers.AdamW(0.01), {"decay_exclude": ("bias",)}),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_training_goes_on(case, suffix, tmp_path):
    """Out of `.h5` files Keras 3 itself has an optimizer that trains nothing."""
    optimizer, change = OPTIMIZERS[case]
    source = _model(layers.Dense(2))
    source.compile(optimizer(), "mse")
    source = kerasbn.rewrite(source, **change)
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    source.fit(x, y, epochs=3, verbose=0)
    source.save(tmp_path / f"source{suffix}")
    loaded = load(tmp_path / f"source{suffix}", custom_objects={"Steady": Steady})
    for model in (source, loaded):
        model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    assert int(loaded.optimizer.iterations) == 5
    assert_same_function(source, loaded, tolerance=1e-6)


def test_an_optimizer_whose_state_is_cut(tmp_path):
    path = tmp_path / "model.h5"
    source = _model()
    source.compile("adam", "mse")
    source.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    source.save(path)
    with h5py.File(path, "a") as file:
        kept = file["optimizer_weights"].attrs
        kept["weight_names"] = kept["weight_names"][:-1]
    with pytest.warns(UserWarning, match="starts afresh: it has 6 variables, and there are 5 in the file"):
        loaded = load(path)
    loaded.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    assert int(loaded.optimizer.iterations) == 1


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_that_is_trusted(suffix, tmp_path):
    model = _model(layers.Lambda(lambda x: 2 * x))
    model.save(tmp_path / f"model{suffix}")
    assert_same_function(model, load(tmp_path / f"model{suffix}", safe=False), tolerance=0)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("loss", ["mse", "mae", "mape", "msle", "bce", "kld", "MSE", "mean_squared_error", "hinge"])
def test_compiled_with_a_short_name(loss, suffix, tmp_path):
    """Keras writes these into HDF5 files, and fails to read them."""
    model = _model()
    model.compile("sgd", loss, metrics=["mae"])
    model.save(tmp_path / f"model{suffix}")
    loaded = load(tmp_path / f"model{suffix}")
    assert isinstance(loaded.optimizer, keras.optimizers.SGD)
    assert keras.losses.get(loaded.loss) is keras.losses.get(loss)


def test_what_a_newer_keras_wrote_is_said_to_be(tmp_path):
    """Where it cannot be read: arguments that Keras has got since."""
    _saved(tmp_path / "old.keras")
    for version, said in (("3.99.0", "It was written by Keras 3.99.0"), (keras.__version__, "'sparkle'")):
        with zipfile.ZipFile(tmp_path / "old.keras") as old, zipfile.ZipFile(tmp_path / "m.keras", "w") as new:
            content = {name: old.read(name) for name in old.namelist()}
            config, metadata = json.loads(content["config.json"]), json.loads(content["metadata.json"])
            config["config"]["layers"][1]["config"]["sparkle"] = 1
            content["config.json"] = json.dumps(config)
            content["metadata.json"] = json.dumps({**metadata, "keras_version": version})
            for name, each in content.items():
                new.writestr(name, each)
        with pytest.raises(ModelFileError) as caught:
            load(tmp_path / "m.keras")
        assert said in str(caught.value)
        assert ("It was written by" in str(caught.value)) is (version == "3.99.0")


def _written_by():
    with zipfile.ZipFile(WRITTEN / "net.keras") as archive:
        return json.loads(archive.read("metadata.json"))["keras_version"]


@pytest.mark.skipif(Version(keras.__version__) < Version(_written_by()), reason="a newer Keras wrote them")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_that_earlier_versions_wrote(suffix):
    """With every argument of the layer, and a schedule scaled, by version 0.1.0 before its modules moved."""
    recorded = np.load(WRITTEN / "net.npz")
    model = load(WRITTEN / f"net{suffix}")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(recorded["inputs"])), recorded["outputs"], rtol=1e-5)
    np.testing.assert_allclose(float(model.optimizer.learning_rate), recorded["rate"], rtol=1e-6)
    assert float(model.optimizer.iterations) == 4
