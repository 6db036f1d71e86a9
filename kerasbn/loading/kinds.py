"""Kinds of files that hold a model, told apart before TensorFlow is imported."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from kerasbn.errors import ModelFileError

Kind = Literal["archive", "hdf5", "json", "saved_model"]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BY_SUFFIX: Mapping[str, Kind] = {".keras": "archive", ".h5": "hdf5", ".hdf5": "hdf5", ".json": "json"}

OTHERS: Mapping[str, str] = {
    ".pb": "a graph of TensorFlow's. If it lies in a SavedModel of Keras 2, give the folder; else save the model again "
    "from the code that made it, with model.save('model.keras')",
    ".tflite": "a model for LiteRT, whose layers are gone. Give the Keras model that it was made from",
    ".onnx": "a model in ONNX, whose layers are gone. Give the Keras model that it was made from",
    ".pkl": "a pickle, which runs code when it is read. Save the model with model.save('model.keras')",
    ".pt": "a file of torch's. Save the Keras model with model.save('model.keras')",
    ".pth": "a file of torch's. Save the Keras model with model.save('model.keras')",
}


def kind_of(path: Path, weights: Path | None = None) -> Kind:
    """The kind of file at a path.

    Raises:
        ModelFileError: if there is none, or none that a model can be read from.
    """
    name = repr(str(path))
    if not _exists(path):
        raise ModelFileError(f"{name} does not exist. Give the path of a .keras or .h5 file, or of a SavedModel.")
    if path.is_dir():
        kind = _kind_of_folder(path)
    elif not path.is_file():
        raise ModelFileError(f"{name} is a pipe or a device, and no file. Give the path of a .keras or .h5 file.")
    elif path.suffix in _BY_SUFFIX:
        kind = "hdf5" if _is_hdf5_by_another_name(path) else _BY_SUFFIX[path.suffix]
    else:
        what = OTHERS.get(path.suffix)
        if what is not None:
            raise ModelFileError(f"{name} is {what}.")
        raise ModelFileError(
            f"{name} has the suffix {path.suffix!r}; models are read from .keras, .h5 and .json files, and from the "
            "folders of SavedModels."
        )
    _check_whole(path, kind)
    if weights is not None:
        _check_weights(path, kind, weights)
    return kind


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no name of a file, or links that lead in a circle
        return False


def _kind_of_folder(path: Path) -> Kind:
    name = repr(str(path))
    if (path / "keras_metadata.pb").is_file():
        _check_files(path)
        return "saved_model"
    if (path / "saved_model.pb").is_file():
        raise ModelFileError(
            f"{name} is a SavedModel without keras_metadata.pb: a graph for serving, whose layers are gone. Save the "
            "model again from the code that made it, with model.save('model.keras')."
        )
    inside = path / "model.json"
    if inside.is_file():
        raise ModelFileError(f"{name} is a folder. Give the file in it, {str(inside)!r}.")
    raise ModelFileError(f"{name} is a folder, and no SavedModel. Give the path of a .keras or .h5 file.")


def _check_files(folder: Path) -> None:
    """Refuse what may be waited for without end, or has none."""
    for each in sorted(folder.rglob("*")):
        if not (each.is_file() or each.is_dir()):
            what = str(each.relative_to(folder))
            raise ModelFileError(
                f"{str(folder)!r} holds {what!r}, which is a pipe, a device or a link to nothing. Save the model again."
            )


def _is_hdf5_by_another_name(path: Path) -> bool:
    """Whether a `.keras` file is one of those that Keras 2 wrote up to 2.12: they are HDF5 files."""
    try:
        return path.suffix == ".keras" and is_hdf5(path)
    except OSError:
        return False


def _check_whole(path: Path, kind: Kind) -> None:
    if kind not in ("archive", "hdf5"):
        return
    name = repr(str(path))
    try:
        whole = zipfile.is_zipfile(path) if kind == "archive" else is_hdf5(path)
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read: {error.strerror}.") from error
    if not whole:
        what = "a .keras archive" if kind == "archive" else "an HDF5 file"
        raise ModelFileError(
            f"{name} is not {what}, or is cut short. Save the model again with model.save({path.name!r})."
        )


def _check_weights(path: Path, kind: Kind, weights: Path) -> None:
    if kind != "json":
        raise ModelFileError(
            f"{str(path)!r} holds its weights itself: weights are for an architecture in JSON. Leave them out."
        )
    if not weights.is_file():
        raise ModelFileError(f"Weights {str(weights)!r} do not exist. Give the path of a .h5 file.")
    if not is_hdf5(weights):
        raise ModelFileError(f"Weights {str(weights)!r} are not an HDF5 file, or are cut short.")


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as an HDF5 file does."""
    with path.open("rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
