"""Parts that are swapped, or missing."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

from harm.good import Kind, repacked, weights_of
from harm.harm import Harm


def swapped(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    """Parts of one kind in another, and configs of other models."""
    for layer in range(1, 4):

        def renamed(folder: Path, layer: int = layer) -> None:
            config = kind.config(folder)
            entries = config["config"]["layers"]
            entries[layer], entries[layer - 1] = entries[layer - 1], entries[layer]
            kind.set_config(folder, config)

        yield Harm("parts swapped", f"layers {layer - 1} and {layer}", kind, renamed, may_change=True)
    if kind.path == "model.keras":

        def version(folder: Path) -> None:
            other = "2.15.0" if kind.family is None else "3.4.0"
            repacked(folder / kind.path, {"metadata.json": json.dumps({"keras_version": other}).encode()}, None)

        def members(folder: Path) -> None:
            with zipfile.ZipFile(folder / kind.path) as archive:
                one, other = archive.read("config.json"), archive.read("model.weights.h5")
            repacked(folder / kind.path, {"config.json": other, "model.weights.h5": one}, None)

        yield Harm("parts swapped", "versions", kind, version, may_change=True)
        yield Harm("parts swapped", "config and weights", kind, members)
    if "TensorFlow.js" in kind.name:

        def shards(folder: Path) -> None:
            one, other = (folder / "0.bin").read_bytes(), (folder / "1.bin").read_bytes()
            (folder / "0.bin").write_bytes(other)
            (folder / "1.bin").write_bytes(one)

        yield Harm("parts swapped", "shards", kind, shards, may_change=True)
    if kind.hdf5_name:

        def weights(folder: Path) -> None:
            with kind.opened_hdf5(folder) as file:
                found = weights_of(file)
                one, other = found[0].name, found[-1].name
                file.move(one, "aside")
                file.move(other, one)
                file.move("aside", other)

        yield Harm("parts swapped", "weights", kind, weights, may_change=True)


def missing(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for part in kind.read_parts:

        def gone(folder: Path, part: int = part) -> None:
            kind.parts(folder)[part].unlink()

        yield Harm("something missing", f"part {part}", kind, gone)
    for key in ("config", "class_name"):

        def without(folder: Path, key: str = key) -> None:
            config = kind.config(folder)
            del config[key]
            kind.set_config(folder, config)

        yield Harm("something missing", f"the model's {key}", kind, without)
    for layer in range(1, 4):
        for key in ("config", "class_name", "name", "inbound_nodes", None):

            def lacking(folder: Path, layer: int = layer, key: str | None = key) -> None:
                config = kind.config(folder)
                entries = config["config"]["layers"]
                if key is None:
                    del entries[layer]
                elif entries[layer].pop(key, None) is None:
                    entries[layer]["config"].pop("name", None)
                kind.set_config(folder, config)

            yield Harm("something missing", f"layer {layer}: {key or 'all'}", kind, lacking, may_change=True)
    if kind.path == "model.keras":
        for member in ("metadata.json", "config.json", "model.weights.h5"):

            def short(folder: Path, member: str = member) -> None:
                repacked(folder / kind.path, {member: None}, None)

            yield Harm("something missing", member, kind, short)
    if kind.hdf5_name:
        for number in range(4):

            def unweighted(folder: Path, number: int = number) -> None:
                with kind.opened_hdf5(folder) as file:
                    found = weights_of(file)
                    del file[found[number % len(found)].name]

            yield Harm("something missing", f"weight {number}", kind, unweighted)
