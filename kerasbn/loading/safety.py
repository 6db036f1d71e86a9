"""What a file may not do to who reads it: run code, reach for other files, fill the memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from kerasbn.errors import ModelFileError

if TYPE_CHECKING:
    import h5py

_CODE = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__")
_BY_FAR = 64
"""What is larger than this many times the room that it takes in the file was made to be."""
_SMALL = 2**26
"""Bytes that do no harm, however little room they take."""


def missing(name: str) -> str:
    """What to say of a class or function that is not there."""
    plain = name.rpartition(">")[2]
    return (
        f"the class {name!r}, which is neither Keras 3's nor registered here. Pass custom_objects={{{plain!r}: ...}}, "
        f"or on the command line --import with the module that registers it, or --custom-objects MODULE:{plain}"
    )


def check_name(name: str, where: str, *, safe: bool) -> None:
    """Refuse what runs code that lies in the file.

    Raises:
        ModelFileError: if that is what the class does, and it is not allowed.
    """
    if safe and name in _CODE:
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
    for where, entry in _entries(config, "the model"):
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


def _entries(value: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All that a config names by its class, each with the layer that it is of."""
    waiting = [(value, where)]
    while waiting:
        value, where = waiting.pop()
        if isinstance(value, dict):
            config = value.get("config")
            if isinstance(value.get("class_name"), str):
                if isinstance(config, dict) and isinstance(config.get("name"), str) and "module" in value:
                    where = (
                        f"layer {config['name']!r}" if "layers" in str(value["module"]) or _is_layer(value) else where
                    )
                yield where, value
            waiting += [(each, where) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(each, where) for each in value]


def _is_layer(entry: Mapping[str, Any]) -> bool:
    return "inbound_nodes" in entry or "build_config" in entry or "name" in entry


def check_archive(archive: zipfile.ZipFile) -> None:
    """Refuse an archive that would write outside of its place, or be larger than it looks.

    Raises:
        ModelFileError: with the name of the entry.
    """
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise ModelFileError(f"its entry {entry.filename!r} leads out of the archive")
        if entry.file_size > max(_SMALL, _BY_FAR * entry.compress_size):
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
        waiting = [("", file)]
        while waiting:
            path, group = waiting.pop()
            for name in group:
                each = f"{path}/{name}"
                if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
                    raise ModelFileError(f"its entry {each!r} is in another file")
                item = group.get(name)
                if item is None:
                    continue
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(item, h5py.Group):
                    waiting.append((each, item))
                elif isinstance(item, h5py.Dataset):
                    _check_dataset(each, item)


def _check_dataset(name: str, dataset: h5py.Dataset) -> None:
    if dataset.external or dataset.is_virtual:
        raise ModelFileError(f"its entry {name!r} is in another file")
    taken = dataset.id.get_storage_size()
    if dataset.nbytes > max(_SMALL, _BY_FAR * taken):
        raise ModelFileError(f"its entry {name!r} takes {taken} bytes and would become {dataset.nbytes}")


def room_for(size: int) -> int:
    """How many elements the weights of a model may have together that comes from a file of this size in bytes."""
    return 16 * size + 2**24
