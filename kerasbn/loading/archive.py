"""`.keras` files of Keras 2."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py

from kerasbn.loading.configs import class_of, group_name
from kerasbn.loading.contents import Contents, Weight
from kerasbn.loading.hdf5 import groups_of
from kerasbn.loading.weights import DEPENDENCIES


def version_of(archive: zipfile.ZipFile) -> str:
    """The version of Keras that wrote an archive."""
    return str(json.loads(archive.read("metadata.json"))["keras_version"])


def read(archive: zipfile.ZipFile) -> Contents:
    """What an archive holds."""
    config = json.loads(archive.read("config.json"))
    with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
        weights = groups_of(file)
    optimizer = weights.inside.get("optimizer")
    return Contents(
        config,
        weights,
        config.get("compile_config"),
        [Weight("", value) for value in optimizer.own] if optimizer else (),
        dict(_vocabularies(archive, config, "assets")),
    )


def _vocabularies(
    archive: zipfile.ZipFile, entry: Mapping[str, Any], folder: str
) -> Iterator[tuple[str, Sequence[str]]]:
    """The words of lookups, which lie in text files."""
    names = [name for name in archive.namelist() if name.startswith(f"{folder}/")]
    if not names:
        return
    counts: Counter[str] = Counter()
    for each in entry["config"].get("layers", ()):
        kind = group_name(class_of(each))
        for holder, step in (("layers", 1), (DEPENDENCIES, 2)):
            number = step * counts[kind]
            path = f"{folder}/{holder}/{kind}{f'_{number}' if number else ''}"
            yield from _vocabularies(archive, each, path)
            for file in (f"{path}/vocabulary.txt", f"{path}/_lookup_layer/vocabulary.txt"):
                if file in names:
                    words = archive.read(file).decode().split("\n")
                    yield each["config"]["name"], [word.removesuffix("\r") for word in words]
        counts[kind] += 1
