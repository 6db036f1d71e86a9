"""What files smuggle in is refused, before it does anything."""

import json
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
            forged.writestr(name, content)
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
    with h5py.File(folder / "model.h5", "r+") as file:
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
