"""What files smuggle in is refused, before it does anything."""

import json
import os
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from kerasbn import ModelFileError, load

pytestmark = pytest.mark.tensorflow


def _model():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")])


def _repacked(folder, change=lambda config: None, further=None):
    """A `.keras` file with another config, and what else it holds."""
    _model().save(folder / "sound.keras")
    with zipfile.ZipFile(folder / "sound.keras") as sound, zipfile.ZipFile(folder / "model.keras", "w") as forged:
        for name in sound.namelist():
            content = sound.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config)
            forged.writestr(name, content, zipfile.ZIP_DEFLATED)
        for name, content in (further or {}).items():
            forged.writestr(name, content, zipfile.ZIP_DEFLATED)
    return folder / "model.keras"


def _replaced(folder, **entry):
    """A `.keras` file whose second layer is something else."""

    def change(config):
        config["config"]["layers"][2] |= entry

    return _repacked(folder, change)


def _hdf5(folder, add):
    """A `.h5` file in which something stands in the place of a weight."""
    _model().save(folder / "model.h5")
    with h5py.File(folder / "model.h5", "r+", libver="latest") as file:
        found = []
        file["model_weights/b"].visititems(lambda name, item: found.append(item.parent) if "kernel" in name else None)
        del found[0]["kernel"]
        add(found[0], folder)
    return folder / "model.h5"


def _elsewhere(folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["kernel"] = np.ones((3, 2), "float32")
    return folder / "other.h5"


def _external_link(group, folder):
    group["kernel"] = h5py.ExternalLink(str(_elsewhere(folder)), "kernel")


def _external_storage(group, folder):
    (folder / "raw").write_bytes(bytes(24))
    group.create_dataset("kernel", (3, 2), "float32", external=str(folder / "raw"))


def _virtual(group, folder):
    layout = h5py.VirtualLayout((3, 2), "float32")
    layout[:] = h5py.VirtualSource(str(_elsewhere(folder)), "kernel", (3, 2))
    group.create_virtual_dataset("kernel", layout)


def _strings(group, folder):
    group.create_dataset("kernel", (3, 2), h5py.string_dtype())


def _many_never_written(group, folder):
    group["kernel"] = np.ones((3, 2), "float32")
    for number in range(20):
        group.create_dataset(f"more{number}", (2**23,), "float32", chunks=(2**20,))


def _twice(group, folder):
    """Two ways to each group, so that there are 2**40 to the last one."""
    group["kernel"] = np.ones((3, 2), "float32")
    for number in range(40):
        inner = group.file.create_group(f"level{number}")
        group["a"], group["b"] = inner, inner
        group = inner


def _inside_itself(group, folder):
    group["kernel"] = group.file["/"]


def _attribute(group, folder):
    group["kernel"] = np.ones((3, 2), "float32")
    group.file.create_group("new").attrs.create("names", ["a long one"] * 9000, dtype=h5py.string_dtype())


def _never_written(group, folder):
    group.create_dataset("kernel", (10**6, 10**5), "float32", chunks=(1000, 1000))


def _wide(folder, suffix):
    if suffix == ".keras":
        return _repacked(folder, lambda config: config["config"]["layers"][2]["config"].update(units=10**8))
    _model().save(folder / "model.h5")
    with h5py.File(folder / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][2]["config"]["units"] = 10**8
        file.attrs["model_config"] = json.dumps(config)
        if suffix == ".h5 of Keras 2":
            file.attrs["keras_version"] = "2.15.0"
    return folder / "model.h5"


def _doubled(path):
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    return path


def _with(path, members):
    """An archive with other members; those that are `None` are left out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | members
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def _in_each_other(config):
    for _ in range(40):
        config = {"class_name": "Sequential", "config": {"name": "outer", "layers": [config]}}
    return config


def _nested_archive(folder):
    def change(config):
        config |= _in_each_other(dict(config))

    return _with(_repacked(folder, change), {"metadata.json": b'{"keras_version": "2.15.0"}'})


def _nested(folder, version):
    """Models in models; Keras takes twice as long for each."""
    _model().save(folder / "model.h5")
    with h5py.File(folder / "model.h5", "r+") as file:
        file.attrs["model_config"] = json.dumps(_in_each_other(json.loads(file.attrs["model_config"])))
        file.attrs["keras_version"] = version
    return folder / "model.h5"


def _inside(folder, version):
    """A Lambda in a wrapper."""
    _model().save(folder / "model.h5")
    with h5py.File(folder / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        inner = {"class_name": "Lambda", "config": {"name": "inner", "function": "x"}}
        config["config"]["layers"][2] = {
            "class_name": "SpectralNormalization",
            "config": {"name": "b", "layer": inner},
        }
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = version
    return folder / "model.h5"


SAVED_MODEL = {"class_name": "TFSMLayer", "config": {"name": "b", "filepath": "elsewhere", "dtype": "float32"}}

# How a file is made, and parts of the message.
HARMFUL = {
    "a Lambda": (lambda folder: _replaced(folder, class_name="Lambda"), "layer 'b' holds code", "--unsafe"),
    "a saved graph": (lambda folder: _replaced(folder, **SAVED_MODEL), "layer 'b' holds code", "--unsafe"),
    "another module": (
        lambda folder: _replaced(folder, module="os", class_name="system", registered_name="system"),
        *("layer 'b'", "'system'", "--import"),
    ),
    "a function that is no layer": (
        lambda folder: _replaced(folder, module="keras.utils", class_name="get_file"),
        *("get_file",),
    ),
    "an entry above": (lambda folder: _repacked(folder, further={"../evil": "x"}), "'../evil'", "leads out"),
    "an entry at the root": (lambda folder: _repacked(folder, further={"/etc/evil": "x"}), "'/etc/evil'", "leads out"),
    "a zip bomb": (lambda folder: _repacked(folder, further={"assets/x": bytes(2**27)}), "'assets/x'", "would become"),
    "a link": (lambda folder: _hdf5(folder, _external_link), "kernel", "in another file"),
    "storage": (lambda folder: _hdf5(folder, _external_storage), "kernel", "in another file"),
    "a virtual dataset": (lambda folder: _hdf5(folder, _virtual), "kernel", "in another file"),
    "an HDF5 bomb": (lambda folder: _hdf5(folder, _never_written), "kernel", "would become"),
    "strings for weights": (lambda folder: _hdf5(folder, _strings), "kernel", "no numbers"),
    "many small bombs": (lambda folder: _hdf5(folder, _many_never_written), "would become"),
    "groups in two places": (lambda folder: _hdf5(folder, _twice), "in another place too"),
    "a group inside itself": (lambda folder: _hdf5(folder, _inside_itself), "kernel", "in another place too"),
    "an attribute of strings": (lambda folder: _hdf5(folder, _attribute), "'names'", "strings"),
    "a member twice": (lambda folder: _doubled(_repacked(folder)), "'config.json'", "twice"),
    "small zip bombs": (
        lambda folder: _repacked(folder, further={f"assets/{number}": bytes(2**25) for number in range(4)}),
        *("'assets/", "would become"),
    ),
    "a great config": (lambda folder: _repacked(folder, lambda config: config.update(x="x" * 2**23)), "would become"),
    "no weights": (lambda folder: _with(_repacked(folder), {"model.weights.h5": None}), "its weights are missing"),
    "a Lambda by a longer name": (
        lambda folder: _replaced(folder, class_name="layers.Lambda", module="keras"),
        *("layer 'b' holds code", "--unsafe"),
    ),
    "a Lambda inside": (lambda folder: _inside(folder, "3.4.0"), "layer 'inner' holds code"),
    "a Lambda inside, Keras 2": (lambda folder: _inside(folder, "2.15.0"), "layer 'inner' holds code"),
    "models in models": (lambda folder: _nested(folder, "3.4.0"), "is a model in more than"),
    "models in models, Keras 2": (lambda folder: _nested(folder, "2.15.0"), "is a model in more than"),
    "models in models, .keras of Keras 2": (_nested_archive, "is a model in more than"),
    "a wide layer": (lambda folder: _wide(folder, ".keras"), "b/kernel", "out of proportion"),
    "a wide layer, h5": (lambda folder: _wide(folder, ".h5"), "b/kernel", "out of proportion"),
    "a wide layer, Keras 2": (lambda folder: _wide(folder, ".h5 of Keras 2"), "b/kernel", "out of proportion"),
}


@pytest.mark.parametrize("case", HARMFUL)
def test_harmful(case, tmp_path):
    make, *parts = HARMFUL[case]
    path = make(tmp_path)
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(ModelFileError) as caught:
        load(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".json"])
def test_what_is_no_file_is_not_opened(suffix, tmp_path):
    """A pipe that nobody writes to would be waited for without end."""
    os.mkfifo(tmp_path / f"model{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    (tmp_path / f"circle{suffix}").symlink_to(f"circle{suffix}")
    for name, message in (("model", "is a pipe or a device"), ("zero", "is a pipe or a device"), ("circle", "exist")):
        with pytest.raises(ModelFileError, match=message):
            load(tmp_path / f"{name}{suffix}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", ["variables/variables.index", "variables/variables.data-00000-of-00001", "more"])
def test_a_saved_model_is_of_files(name, tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "keras_metadata.pb").touch()
    os.mkfifo(tmp_path / "model" / name)
    with pytest.raises(ModelFileError, match=f"{name}', which is a pipe"):
        load(tmp_path / "model")


def test_what_the_terminal_would_obey_is_not_said(tmp_path):
    with pytest.raises(ModelFileError) as caught:
        load(_replaced(tmp_path, class_name="\x1b]0;title\x07", module=None, registered_name=None))
    assert str(caught.value).isprintable()
    with pytest.raises(ModelFileError) as caught:
        load(_replaced(tmp_path, class_name="a" * 10**6, module=None, registered_name=None))
    assert len(str(caught.value)) < 1500


def test_a_repacked_file_is_no_harm(tmp_path):
    load(_repacked(tmp_path))


OTHERS = {
    "model.pb": ("a graph of TensorFlow's", "model.save"),
    "model.tflite": ("LiteRT", "Keras model"),
    "model.onnx": ("ONNX", "Keras model"),
    "model.pkl": ("a pickle", "model.save"),
    "folder/saved_model.pb": ("without keras_metadata.pb", "model.save"),
    "folder/model.json": ("is a folder", "model.json"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_holds_no_layers(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"something")
    with pytest.raises(ModelFileError) as caught:
        load(path if path.parent == tmp_path else path.parent)
    assert all(part in str(caught.value) for part in OTHERS[name])
