"""Read models from files, with one clear error for each way in which that goes wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from kerasbn.errors import ModelFileError

if TYPE_CHECKING:
    import keras

# Keras fails to read the short names that it writes into HDF5 files itself.
_SHORT_NAMES = ("mse", "mae", "mape", "msle", "bce", "kld")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def check_model_file(path: Path) -> None:
    """Refuse a path that cannot hold a model, before TensorFlow is imported.

    Raises:
        ModelFileError: if there is no such file, or it is not of a format that can be read.
    """
    name = repr(str(path))
    if not path.exists():
        raise ModelFileError(f"{name} does not exist. Give the path of a .keras or .h5 file.")
    if path.is_dir():
        raise ModelFileError(f"{name} is a folder; SavedModels cannot be read yet. Save the model as .keras.")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ModelFileError(f"{name} has the suffix {path.suffix!r}; models are read from .keras and .h5 files.")
    try:
        whole = zipfile.is_zipfile(path) if path.suffix == ".keras" else _is_hdf5(path)
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read: {error.strerror}.") from error
    if not whole:
        kind = "a .keras archive" if path.suffix == ".keras" else "an HDF5 file"
        raise ModelFileError(
            f"{name} is not {kind}, or is cut short. Save the model again with model.save({path.name!r})."
        )


def load(path: Path, *, unsafe: bool = False) -> keras.Model:
    """Load a model, compiled state included.

    Args:
        path: A `.keras` or `.h5` file.
        unsafe: Whether code in the file may be run, as Lambda layers hold it.

    Raises:
        ModelFileError: if the file cannot be read.
    """
    check_model_file(path)
    import keras

    import kerasbn.serializable  # noqa: F401  # so that files that hold its classes load

    short = {name: keras.losses.get(name) for key in _SHORT_NAMES for name in (key, key.upper())}
    try:
        return keras.models.load_model(str(path), custom_objects=short, safe_mode=not unsafe)
    except Exception as error:
        raise ModelFileError(f"{str(path)!r} cannot be loaded: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    message = " ".join(str(error).split())
    if "safe_mode" in message or "unsafe" in message:
        return "it holds code (a Lambda layer). If you trust its source, allow that with --unsafe."
    if "Could not locate" in message:
        missing = message.partition("Could not locate ")[2].split(".")[0]
        return (
            f"it needs {missing}, which is not registered here. Load it in Python with custom_objects= and call "
            "kerasbn.rewrite."
        )
    return message[:300] or type(error).__name__


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
