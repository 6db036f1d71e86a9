"""Small good files of every kind that `kerasbn.load` reads: what harm is done to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers

FAMILIES = Path(__file__).parent.parent.parent / "tests" / "loading" / "keras2"
WEIGHTS = "model.weights.h5"
"""The HDF5 file in an archive."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: What it is called in the table.
        path: What is loaded, in a folder.
        weights: The file of weights that is given with it.
        family: The family of `tests/loading/keras2` that it holds; `None` for one of Keras 3.
        checked: Whether a checksum tells when a bit is another one.
    """

    name: str
    path: str
    weights: str | None = None
    family: str | None = None
    checked: bool = False

    def parts(self, folder: Path) -> list[Path]:
        """The files that it is of."""
        if (folder / self.path).is_dir():
            return sorted(each for each in (folder / self.path).rglob("*") if each.is_file())
        return sorted(each for each in folder.iterdir() if each.is_file())

    @property
    def hdf5_name(self) -> str | None:
        """The name of the HDF5 file among them."""
        return next((each for each in (self.path, self.weights or "") if each.endswith(".h5")), None)

    @contextlib.contextmanager
    def opened_hdf5(self, folder: Path) -> Iterator[h5py.File]:
        """The HDF5 file, in an archive too, to be changed."""
        archive = None if self.hdf5_name else folder / self.path
        path = folder / (self.hdf5_name or "inside.h5")
        if archive:
            with zipfile.ZipFile(archive) as content:
                path.write_bytes(content.read(WEIGHTS))
        with h5py.File(path, "r+", libver="latest") as file:
            yield file
        if archive:
            repacked(archive, {WEIGHTS: path.read_bytes()})
            path.unlink()

    @property
    def read_parts(self) -> tuple[int, ...]:
        """Which of its files are read; in a SavedModel there are others, for serving alone."""
        if self.name.startswith("SavedModel"):
            return (1, 3, 4)
        return tuple(range(3 if self.name.startswith("TensorFlow.js") else 2 if self.weights else 1))

    def config(self, folder: Path) -> dict[str, Any]:
        """The class and config of the model."""
        return _READ[self.name.partition(" of ")[0]](folder / self.path)

    def set_config(self, folder: Path, config: Any) -> None:
        """Have the file say something else; text as it is."""
        text = config if isinstance(config, str | bytes) else json.dumps(config)
        _WRITE[self.name.partition(" of ")[0]](folder / self.path, text.encode() if isinstance(text, str) else text)


KINDS = (
    Kind(".keras of Keras 3", "model.keras", checked=True),
    Kind(".h5 of Keras 3", "model.h5"),
    Kind("JSON of Keras 3", "model.json", "model.weights.h5"),
    Kind(".keras of Keras 2", "model.keras", family="compiled", checked=True),
    Kind(".h5 of Keras 2", "model.h5", family="conv"),
    Kind("SavedModel of Keras 2", "model", family="conv"),
    Kind("JSON of Keras 2", "model.json", "model.weights.h5", family="compiled"),
    Kind("TensorFlow.js of Keras 2", "model.json", family="conv"),
)


def make(root: Path) -> dict[str, Path]:
    """A folder with a good file of each kind, by its name."""
    made = {}
    for number, kind in enumerate(KINDS):
        folder = root / str(number)
        folder.mkdir(parents=True)
        _of_keras_2(folder, kind) if kind.family else _of_keras_3(folder, kind)
        made[kind.name] = folder
    return made


def _of_keras_3(folder: Path, kind: Kind) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="x")
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = layers.BatchNormalization(name="normalization")(x)
    x = layers.Dropout(0.5, name="dropout")(layers.Flatten(name="flat")(x))
    model = keras.Model(inputs, layers.Dense(5, kernel_regularizer="l2", name="last")(x))
    model.compile("adam", "mse", metrics=["mae"])
    if kind.path == "model.json":
        (folder / "model.json").write_text(model.to_json())
        model.save_weights(folder / "model.weights.h5")
    else:
        model.save(folder / kind.path)


def _of_keras_2(folder: Path, kind: Kind) -> None:
    with zipfile.ZipFile(FAMILIES / f"{kind.family}.zip") as archive:
        archive.extractall(folder)
    if kind.name.startswith("TensorFlow.js"):
        _as_tensorflow_js(folder)
    wanted = {kind.path, kind.weights} | ({"0.bin", "1.bin"} if kind.name.startswith("TensorFlow.js") else set())
    for each in folder.iterdir():
        if each.name not in wanted:
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def _as_tensorflow_js(folder: Path) -> None:
    with h5py.File(folder / "model.h5") as file:
        topology = {"keras_version": "2.21.0", "backend": "tensorflow"}
        topology["model_config"] = json.loads(file.attrs["model_config"])
        group, weights = file["model_weights"], []
        for layer in group.attrs["layer_names"]:
            weights += [(name, np.asarray(group[layer][name])) for name in group[layer].attrs["weight_names"]]
    specs = [
        {"name": _text(name).partition(":")[0], "shape": list(value.shape), "dtype": "float32"}
        for name, value in weights
    ]
    content = b"".join(value.tobytes() for _, value in weights)
    (folder / "0.bin").write_bytes(content[:100])
    (folder / "1.bin").write_bytes(content[100:])
    manifest = [{"paths": ["0.bin", "1.bin"], "weights": specs}]
    description = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(description))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def repacked(
    path: Path, changed: Mapping[str, bytes | None], further: Callable[[zipfile.ZipFile], None] | None = None
) -> None:
    """An archive with other members; those that are `None` are left out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, **changed}.items():
            if content is not None:
                archive.writestr(name, content)
        if further is not None:
            further(archive)


def weights_of(file: h5py.File) -> list[h5py.Dataset]:
    """The weights in an HDF5 file."""
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if _is_weight(item) else None)
    return found


def _is_weight(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and item.ndim > 0


def _config_of_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def _config_of_hdf5(path: Path) -> Any:
    with h5py.File(path) as file:
        return json.loads(file.attrs["model_config"])


def _config_to_hdf5(path: Path, text: bytes) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
        if len(text) < 60_000:
            file.attrs["model_config"] = np.bytes_(text)
        else:
            file.attrs.create("model_config", text.decode(errors="surrogateescape"), dtype=h5py.string_dtype())


def _config_of_tensorflow_js(path: Path) -> Any:
    return json.loads(path.read_text())["modelTopology"]["model_config"]


def _config_to_tensorflow_js(path: Path, text: bytes) -> None:
    content = json.loads(path.read_text())
    content["modelTopology"]["model_config"] = "here"
    path.write_bytes(json.dumps(content).encode().replace(b'"here"', text))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    from kerasbn.loading.saved_model import _fields

    return _fields(message)


def message(content: list[tuple[int, Any]]) -> bytes:
    """A protocol buffer of numbers and bytes."""
    found = b""
    for number, value in content:
        if isinstance(value, int):
            found += _varint(number << 3) + _varint(value)
        else:
            found += _varint(number << 3 | 2) + _varint(len(value)) + value
    return found


def _config_of_saved_model(path: Path) -> Any:
    for _, node in fields((path / "keras_metadata.pb").read_bytes()):
        if dict(fields(node)).get(3) == b"root":
            return json.loads(dict(fields(node))[5])["model_config"]
    raise AssertionError


def _config_to_saved_model(path: Path, text: bytes) -> None:
    nodes = []
    for number, node in fields((path / "keras_metadata.pb").read_bytes()):
        content = list(fields(node))
        if dict(content).get(3) == b"root":
            metadata = json.loads(dict(content)[5])
            metadata["model_config"] = "here"
            said = json.dumps(metadata).encode().replace(b'"here"', text)
            content = [(each, said if each == 5 else value) for each, value in content]
        nodes.append((number, message(content)))
    (path / "keras_metadata.pb").write_bytes(message(nodes))


_READ: Mapping[str, Callable[[Path], Any]] = {
    ".keras": _config_of_archive,
    ".h5": _config_of_hdf5,
    "JSON": lambda path: json.loads(path.read_text()),
    "SavedModel": _config_of_saved_model,
    "TensorFlow.js": _config_of_tensorflow_js,
}
_WRITE: Mapping[str, Callable[[Path, bytes], Any]] = {
    ".keras": lambda path, text: repacked(path, {"config.json": text}),
    ".h5": _config_to_hdf5,
    "JSON": Path.write_bytes,
    "SavedModel": _config_to_saved_model,
    "TensorFlow.js": _config_to_tensorflow_js,
}
