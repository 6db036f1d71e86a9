"""A model from a file of whatever kind."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kerasbn.errors import KerasBNError, ModelFileError
from kerasbn.loading.causes import NOT_COMPILED, cause, line
from kerasbn.loading.contents import Contents
from kerasbn.loading.kinds import Kind, kind_of
from kerasbn.loading.safety import check_archive, check_code, check_config, check_hdf5, room_for
from kerasbn.turns import in_turn

if TYPE_CHECKING:
    import keras

# Keras fails to read the short names that it writes into HDF5 files itself.
_SHORT_NAMES = ("mse", "mae", "mape", "msle", "bce", "kld")


class Loaded(NamedTuple):
    """A model, and what is not quite as in its file."""

    model: keras.Model
    notes: tuple[str, ...] = ()


def load(
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    safe: bool = True,
) -> keras.Model:
    """A model from a file of Keras 3 or Keras 2, with what it was compiled with.

    Files of Keras 2 are read without it: what they say is put in the words of Keras 3, and what Keras 3 has no word for
    is refused. What could not come along, such as an optimizer that cannot be read, is told in a `UserWarning`.

    Args:
        path: A `.keras` or `.h5` file, the folder of a SavedModel of Keras 2, the architecture of a model in JSON, or
            TensorFlow.js's `model.json`.
        weights: Where `path` is an architecture in JSON, the `.h5` or `.weights.h5` file with its weights. Defaults to
            `None`.
        custom_objects: Classes and functions that the file names, by their names there. What is registered with
            Keras is found without. Defaults to `None`.
        safe: Whether files that hold code, as Lambda layers do, are refused. Defaults to `True`.

    Returns:
        The model.

    Raises:
        ModelFileError: if the file cannot be read, or not without harm.

    Example:

    ```python
    model = kerasbn.load("trained_with_keras_2.h5")
    ```
    """
    loaded = read(
        Path(path), weights=None if weights is None else Path(weights), custom_objects=custom_objects, safe=safe
    )
    for note in loaded.notes:
        warnings.warn(f"{os.fspath(path)!r}: {note}", stacklevel=2)
    return loaded.model


@in_turn()
def read(
    path: Path,
    *,
    weights: Path | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    safe: bool = True,
) -> Loaded:
    """What `load` gives, with its notes."""
    kind = kind_of(path, weights)
    import keras

    import kerasbn.serializable  # noqa: F401  # so that files that hold its classes load

    short = {name: keras.losses.get(name) for key in _SHORT_NAMES for name in (key, key.upper())}
    known = {**short, **(custom_objects or {})}
    try:
        return _READERS[kind](path, weights, known, safe)
    except Exception as error:
        raise ModelFileError(f"{str(path)!r} cannot be loaded: {line(cause(error))}.") from error


def _archive(path: Path, weights: Path | None, custom_objects: Mapping[str, Any], safe: bool) -> Loaded:
    from kerasbn.loading import archive

    with zipfile.ZipFile(path) as file:
        check_archive(file, path.stat().st_size)
        names = set(file.namelist())
        if "config.json" not in names or "metadata.json" not in names:
            raise ModelFileError("it has no config.json of Keras's: it is another archive")
        if "model.weights.h5" not in names:
            raise ModelFileError("it has no model.weights.h5: its weights are missing")
        check_hdf5(io.BytesIO(file.read("model.weights.h5")))
        version = archive.version_of(file)
        if version.startswith("2"):
            return _of_keras_2(archive.read(file), path, custom_objects, safe)
        config = json.loads(file.read("config.json"))
    return _of_keras_3(config, path, custom_objects, safe, version)


def _hdf5(path: Path, weights: Path | None, custom_objects: Mapping[str, Any], safe: bool) -> Loaded:
    import h5py

    from kerasbn.loading import hdf5
    from kerasbn.loading.compiling import resumed
    from kerasbn.loading.recorded import operations_in

    check_hdf5(path)
    with h5py.File(path, "r") as file:
        version = hdf5.version_of(file)
        if "model_config" not in file.attrs or not version.startswith("3"):
            return _of_keras_2(hdf5.read(path, file), path, custom_objects, safe)
        config = json.loads(file.attrs["model_config"])
    loaded = _of_keras_3(config, path, {**operations_in(config), **custom_objects}, safe, version)
    with h5py.File(path, "r") as file:
        notes = tuple(resumed(loaded.model, functools.partial(hdf5.optimizer_of, file), custom_objects))
    return loaded._replace(notes=loaded.notes + notes)


def _saved_model(path: Path, weights: Path | None, custom_objects: Mapping[str, Any], safe: bool) -> Loaded:
    from kerasbn.loading import saved_model

    return _of_keras_2(saved_model.read(path), path, custom_objects, safe)


def _json(path: Path, weights: Path | None, custom_objects: Mapping[str, Any], safe: bool) -> Loaded:
    from kerasbn.loading import json_file

    content = json_file.content_of(path)
    if "modelTopology" in content:
        sizes = [shard.stat().st_size for shard in json_file.shards_of(path, content)]
        contents = json_file.of_tensorflow_js(path, content)
        return _of_keras_2(contents, path, custom_objects, safe, size=sum(sizes))
    if weights is None:
        raise ModelFileError("it is an architecture without weights. Give their .h5 file: weights=, or --weights")
    check_hdf5(weights)
    if json_file.is_of_keras_3(content):
        version = str(content.get("keras_version", "3"))
        return _of_keras_3(content, weights, custom_objects, safe, version, is_architecture=True)
    return _of_keras_2(Contents(content, json_file.weights_of(weights), None), weights, custom_objects, safe)


_READERS: Mapping[Kind, Callable[[Path, Path | None, Mapping[str, Any], bool], Loaded]] = {
    "archive": _archive,
    "hdf5": _hdf5,
    "json": _json,
    "saved_model": _saved_model,
}


def _of_keras_3(
    config: Any,
    path: Path,
    custom_objects: Mapping[str, Any],
    safe: bool,
    version: str,
    is_architecture: bool = False,
) -> Loaded:
    """As Keras reads it itself, once it is known to be without harm; what it was compiled with, where Keras can.

    Args:
        config: What the model is made from.
        path: The file that is read; of an architecture that of the weights.
        custom_objects: What the file may name.
        safe: Whether code is refused.
        version: That of Keras that wrote it.
        is_architecture: Whether the config is a file of its own.
    """
    import keras

    from kerasbn import _keras

    registered = functools.partial(keras.saving.get_registered_object, custom_objects=custom_objects)
    training = config.get("compile_config") if isinstance(config, dict) else None
    bare = {**config, "compile_config": None} if training else config
    check_config(bare, safe=safe, registered=registered)
    check_code(training, "what it was compiled with", safe=safe)

    def load(*, compiled: bool) -> keras.Model:
        options = {"custom_objects": custom_objects, "safe_mode": safe}
        with _keras.variables_within(room_for(_size(path))):
            if not is_architecture:
                return keras.models.load_model(str(path), compile=compiled, **options)
            given = copy.deepcopy(config if compiled else bare)  # Keras takes it apart
            model = keras.saving.deserialize_keras_object(given, **options)
            model.load_weights(str(path))
            return model

    with _blamed_on(version):
        try:
            check_config(training, safe=safe, registered=registered)
            return Loaded(load(compiled=True))
        except Exception as error:  # if that is not of the model itself, which then fails again
            return Loaded(load(compiled=False), (f"{NOT_COMPILED}: {line(cause(error))}.",))


@contextmanager
def _blamed_on(version: str) -> Iterator[None]:
    """Say of what Keras cannot read that a newer version has written it, if so."""
    import keras

    try:
        yield
    except KerasBNError:
        raise
    except Exception as error:
        if _release(version) <= _release(keras.__version__):
            raise
        raise ModelFileError(
            f"{cause(error)}. It was written by Keras {version}, and {keras.__version__} is here. Install that one"
        ) from error


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, whatever a file gives as one."""
    return tuple(int(number) for number in re.findall(r"\d{1,6}", version)[:2])


def _of_keras_2(
    contents: Contents,
    path: Path,
    custom_objects: Mapping[str, Any],
    safe: bool,
    size: int | None = None,
) -> Loaded:
    from kerasbn import _keras
    from kerasbn.loading.building import Builder
    from kerasbn.loading.compiling import compiled
    from kerasbn.loading.weights import fill

    check_code(contents.config, "the model", safe=safe)
    check_code(contents.training, "what it was compiled with", safe=safe)
    builder = Builder(custom_objects, safe=safe, vocabularies=contents.vocabularies)
    notes = ["It is of Keras 2; its layers are those of Keras 3 now."]
    with _keras.variables_within(room_for(_size(path) if size is None else size)):
        model = builder.model(contents.config)
        if contents.weights is not None:
            fill(model, contents.weights, contents.config)
        if builder.operations:
            named = ", ".join(builder.operations[:3]) + (", ..." if len(builder.operations) > 3 else "")
            notes.append(f"{len(builder.operations)} of TensorFlow's functions are operations of Keras 3 now: {named}.")
        if contents.training is not None:
            notes += compiled(model, contents.training, contents.optimizer, custom_objects)
    return Loaded(model, tuple(notes))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files if each.is_file())
