"""What a file may not do to who reads it: run code, reach for other files, fill the memory."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from kerasbn.errors import ModelFileError
from kerasbn.loading.causes import missing

if TYPE_CHECKING:
    import h5py

_CODE = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__")
_BY_FAR = 64
"""What is larger than this many times the room that it takes in the file was made to be."""
_SMALL = 2**26
"""Bytes that do no harm, however little room they take."""
_SMALL_TEXT = 2**22
"""The same of JSON, of which a byte becomes many."""
_DEEPEST = 12
"""As many models may be in each other; each doubles the time that Keras takes for Sequential ones."""
_MOST_STRINGS = 2**13
"""As many strings of open length an attribute may have; they may all be one long string in the file."""


def check_name(name: str, where: str, *, safe: bool) -> None:
    """Refuse what runs code that lies in the file.

    Raises:
        ModelFileError: if that is what the class does, and it is not allowed.
    """
    if safe and re.split(r"[.>]", name)[-1] in _CODE:  # "keras.layers.Lambda" and "Custom>Lambda" are the same
        raise ModelFileError(
            f"{where} holds code ({name}). If you trust its source, allow that with safe=False, --unsafe on the "
            "command line"
        )


def check_config(config: Any, *, safe: bool, registered: Any) -> None:
    """Refuse a config of Keras 3's that names code, or what is neither Keras's own nor registered.

    Args:
        config: The config.
        safe: Whether code is refused.
        registered: Gives what is registered by a name, `None` for nothing.

    Raises:
        ModelFileError: with the name of the layer.
    """
    for where, entry in entries(config, "the model"):
        name = str(entry["class_name"])
        check_name(name, where, safe=safe)
        module = entry.get("module")
        known = registered(entry.get("registered_name") or name) is not None
        if module is None or known or not isinstance(module, str):
            continue
        package = module.partition(".")[0]
        if package == "builtins" and name == "function":
            continue
        if package not in ("keras", "keras_hub", "keras_cv", "keras_nlp"):
            raise ModelFileError(f"{where} needs {missing(str(entry.get('registered_name') or name))}")


def check_code(config: Any, where: str, *, safe: bool) -> None:
    """Refuse a config of Keras 2's that names code, wherever in it.

    Raises:
        ModelFileError: with the name of the layer.
    """
    for each, entry in entries(config, where):
        check_name(str(entry["class_name"]), each, safe=safe)


def entries(value: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All that a config names by its class, each with the layer that it is of.

    Raises:
        ModelFileError: if models lie in each other at a depth that Keras would take very long for.
    """
    waiting = [(value, where, 0)]
    while waiting:
        value, where, depth = waiting.pop()
        if isinstance(value, dict):
            config = value.get("config")
            if isinstance(value.get("class_name"), str):
                if isinstance(config, dict) and isinstance(config.get("name"), str) and _is_layer(value):
                    where = f"layer {config['name']!r}"
                depth += isinstance(config, dict) and "layers" in config
                if depth > _DEEPEST:
                    raise ModelFileError(f"{where} is a model in more than {_DEEPEST} others, one in the other")
                yield where, value
            waiting += [(each, where, depth) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(each, where, depth) for each in value]


def _is_layer(entry: Mapping[str, Any]) -> bool:
    keys = ("inbound_nodes", "build_config", "name")  # without any, as in Sequential, it tells by its module
    return any(key in entry for key in keys) or "layers" in str(entry.get("module", "layers"))


def check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive that would write outside of its place, or be larger than it looks.

    Args:
        archive: The archive.
        size: The bytes that it takes.

    Raises:
        ModelFileError: with the name of the entry.
    """
    names: set[str] = set()
    become = 0
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise ModelFileError(f"its entry {entry.filename!r} leads out of the archive")
        if entry.filename in names:
            raise ModelFileError(f"its entry {entry.filename!r} is in it twice")
        names.add(entry.filename)
        become += entry.file_size
        small = _SMALL_TEXT if path.suffix == ".json" else _SMALL
        if entry.file_size > max(small, _BY_FAR * entry.compress_size) or become > max(_SMALL, _BY_FAR * size):
            raise ModelFileError(
                f"its entry {entry.filename!r} takes {entry.compress_size} bytes and would become {entry.file_size}"
            )


def check_hdf5(source: Path | IO[bytes]) -> None:
    """Refuse an HDF5 file that reaches for others, or is larger than it looks.

    Raises:
        ModelFileError: with the name of what does.
    """
    import h5py

    with h5py.File(source, "r") as file:
        seen: set[Any] = set()
        taken = become = 0
        waiting: list[tuple[str, Any]] = [("", file)]
        while waiting:
            path, group = waiting.pop()
            _check_attributes(path, group)
            for name in group:
                each = f"{path}/{name}"
                if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
                    raise ModelFileError(f"its entry {each!r} is in another file")
                item = group.get(name)
                if isinstance(item, h5py.Group):
                    if (address := h5py.h5o.get_info(item.id).addr) in seen:
                        raise ModelFileError(f"its entry {each!r} is a group that is in another place too")
                    seen.add(address)
                    waiting.append((each, item))
                elif isinstance(item, h5py.Dataset):
                    _check_attributes(each, item)
                    _check_dataset(each, item)
                    taken, become = taken + item.id.get_storage_size(), become + item.nbytes
                    if become > max(_SMALL, _BY_FAR * taken):
                        raise ModelFileError(f"its entries take {taken} bytes and would become {become}")


def _check_attributes(name: str, item: Any) -> None:
    for attribute in item.attrs:
        found = item.attrs.get_id(attribute)
        if found.dtype.kind == "O" and math.prod(found.shape or ()) > _MOST_STRINGS:
            raise ModelFileError(f"its entry {name!r} has an attribute {attribute!r} of {found.shape} strings")


def _check_dataset(name: str, dataset: h5py.Dataset) -> None:
    if dataset.external or dataset.is_virtual:
        raise ModelFileError(f"its entry {name!r} is in another file")
    if dataset.dtype.kind == "O":
        raise ModelFileError(f"its entry {name!r} holds strings or references, and no numbers")
    taken = dataset.id.get_storage_size()
    if dataset.nbytes > max(_SMALL, _BY_FAR * taken):
        raise ModelFileError(f"its entry {name!r} takes {taken} bytes and would become {dataset.nbytes}")


def room_for(size: int) -> int:
    """How many elements the weights of a model may have together that comes from a file of this size in bytes."""
    return 16 * size + 2**24
