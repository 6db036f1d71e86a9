"""What is done to good files."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import marshal
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from harm.good import KINDS, Kind, repacked

CANARY = "canary_has_sung"
"""A file that comes to be where code of a file's is run."""


@dataclasses.dataclass(frozen=True)
class Harm:
    """Something that is done to a kind of file.

    Attributes:
        group: The row of the table.
        name: What it is.
        kind: The kind of file.
        do: What does it, in a folder with a good file; it may give another path to be loaded.
        may_change: Whether a file may be read after it that holds another model than before.
    """

    group: str
    name: str
    kind: Kind
    do: Callable[[Path], str | None]
    may_change: bool = False


def every(seed: int = 0) -> list[Harm]:
    """All that there is, always the same for the same seed."""
    chance = random.Random(seed)
    makers = (_truncated, _flipped, _garbled, _suffixes, _swapped, _missing, _not_finite, _code, _sizes, _deep, _types)
    found = [harm for kind in KINDS for maker in makers for harm in maker(kind, random.Random(chance.random()))]
    found += [harm for kind in KINDS for harm in (*_of_hdf5(kind), *_of_archives(kind), *_of_others(kind))]
    return found


def _bytes(kind: Kind, group: str, name: str, change: Callable[[bytearray], Any], part: int) -> Harm:
    def do(folder: Path) -> None:
        path = kind.parts(folder)[part]
        content = bytearray(path.read_bytes())
        changed = change(content)
        path.write_bytes(content if changed is None else changed)

    return Harm(group, f"{name} of part {part}", kind, do, may_change=not kind.checked)


def _parts(kind: Kind) -> tuple[int, ...]:
    """The files that are read; in a SavedModel there are others, for serving alone."""
    if "SavedModel" in kind.name:
        return (1, 3, 4)
    return tuple(range(3 if "TensorFlow.js" in kind.name else 2 if kind.weights else 1))


def _truncated(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for part in _parts(kind):
        for number in range(14):
            where = chance.random() if number else 0.0
            cut = lambda content, where=where: content[: int(where * len(content))]  # noqa: E731
            yield dataclasses.replace(_bytes(kind, "cut short", f"at {where:.3f}", cut, part), may_change=False)


def _flipped(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for part in _parts(kind):
        for number in range(16):
            seed, bits = chance.random(), 1 if number < 10 else 100

            def flip(content: bytearray, seed: float = seed, bits: int = bits) -> None:
                where = random.Random(seed)
                for _ in range(bits):
                    content[where.randrange(len(content))] ^= 1 << where.randrange(8)

            yield _bytes(kind, "bits flipped", f"{bits} bits by {seed:.3f}", flip, part)


def _garbled(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    def replaced(content: bytearray, where: float, new: bytes) -> None:
        at = int(where * len(content))
        content[at : at + len(new)] = new

    for part in _parts(kind):
        for name, new in (("zeros", bytes(64)), ("ones", b"\xff" * 64), ("zeros, many", bytes(2000))):
            for _ in range(2):
                where = chance.random()
                change = lambda content, where=where, new=new: replaced(content, where, new)  # noqa: E731
                yield _bytes(kind, "overwritten", f"{name} at {where:.3f}", change, part)
        yield _bytes(kind, "overwritten", "garbage behind", lambda content: content + b"\x01garbage" * 50, part)
        yield _bytes(kind, "overwritten", "garbage ahead", lambda content: b"garbage" + content, part)
        yield _bytes(kind, "overwritten", "twice", lambda content: content + content, part)


def _suffixes(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    others = (".keras", ".h5", ".hdf5", ".json", ".weights.h5", ".pb", ".tflite", ".onnx", ".pkl", ".pt", "", ".KERAS")

    for suffix in others:

        def do(folder: Path, suffix: str = suffix) -> str:
            (folder / kind.path).rename(folder / f"other{suffix}")
            return f"other{suffix}"

        yield Harm("another suffix", suffix or "none", kind, do)


def _swapped(kind: Kind, chance: random.Random) -> Iterator[Harm]:
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
            with h5py.File(kind.hdf5(folder), "r+") as file:
                found: list[str] = []
                file.visititems(lambda name, item: found.append(name) if _is_weight(item) else None)
                one, other = found[0], found[-1]
                file.move(one, "aside")
                file.move(other, one)
                file.move("aside", other)

        yield Harm("parts swapped", "weights", kind, weights, may_change=True)


def _is_weight(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and item.ndim > 0


def _missing(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for part in _parts(kind):

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
                with h5py.File(kind.hdf5(folder), "r+") as file:
                    found: list[str] = []
                    file.visititems(lambda name, item: found.append(name) if _is_weight(item) else None)
                    del file[found[number % len(found)]]

            yield Harm("something missing", f"weight {number}", kind, unweighted)


def _not_finite(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for value in (np.nan, np.inf, -np.inf, 3e38):
        if kind.hdf5_name:

            def do(folder: Path, value: float = value) -> None:
                with h5py.File(kind.hdf5(folder), "r+") as file:
                    found: list[h5py.Dataset] = []
                    file.visititems(lambda _, item: found.append(item) if _is_weight(item) else None)
                    found[-1][...] = value

        elif kind.path == "model.keras":

            def do(folder: Path, value: float = value) -> None:
                with zipfile.ZipFile(folder / kind.path) as archive:
                    content = io.BytesIO(archive.read("model.weights.h5"))
                with h5py.File(content, "r+") as file:
                    found: list[h5py.Dataset] = []
                    file.visititems(lambda _, item: found.append(item) if _is_weight(item) else None)
                    found[0][...] = value
                repacked(folder / kind.path, {"model.weights.h5": content.getvalue()}, None)

        elif "TensorFlow.js" in kind.name:

            def do(folder: Path, value: float = value) -> None:
                content = np.frombuffer((folder / "1.bin").read_bytes(), "float32").copy()
                content[3] = value
                (folder / "1.bin").write_bytes(content.tobytes())

        else:
            continue
        yield Harm("weights that are no numbers", str(value), kind, do, may_change=True)


_SINGING = f"__import__('os').open({CANARY!r}, 65)"
_CODE = base64.b64encode(marshal.dumps(compile(f"lambda x: {_SINGING}", "file", "eval").co_consts[0])).decode()
_FUNCTION = {"class_name": "__lambda__", "config": {"code": _CODE, "defaults": None, "closure": None}}


def _code(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    """Layers, and what layers hold, that would run something."""
    layers: dict[str, dict[str, Any]] = {
        "Lambda": {"class_name": "Lambda", "config": {"function": _FUNCTION}},
        "Lambda of Keras 2": {
            "class_name": "Lambda",
            "config": {"function": [_CODE, None, None], "function_type": "lambda", "module": "canary"},
        },
        "layers.Lambda": {"class_name": "layers.Lambda", "module": "keras", "config": {"function": _FUNCTION}},
        "Custom>Lambda": {"class_name": "Custom>Lambda", "config": {"function": _FUNCTION}},
        "keras>Lambda": {"class_name": "keras>Lambda", "registered_name": "Lambda", "config": {"function": _FUNCTION}},
        "core.Lambda": {
            "class_name": "Lambda",
            "module": "keras.src.layers.core.lambda_layer",
            "registered_name": None,
            "config": {"function": _FUNCTION},
        },
        "TFSMLayer": {"class_name": "TFSMLayer", "config": {"filepath": "somewhere"}},
        "TorchModuleWrapper": {"class_name": "TorchModuleWrapper", "config": {"module": "canary"}},
        "a function": {"class_name": "system", "module": "os", "registered_name": "system", "config": {}},
        "a module": {"class_name": "Song", "module": "canary", "registered_name": "Song", "config": {}},
        "keras.utils.get_file": {
            "class_name": "get_file",
            "module": "keras.utils",
            "registered_name": "get_file",
            "config": {"fname": CANARY, "origin": "file:///etc/passwd"},
        },
        "a loader": {
            "class_name": "load_model",
            "module": "keras.models",
            "registered_name": None,
            "config": {"filepath": "model.pkl"},
        },
        "a dunder": {"class_name": "__class__", "module": "keras.layers", "config": {}},
        "wrapped": {
            "class_name": "TimeDistributed",
            "module": "keras.layers",
            "config": {"layer": {"class_name": "Lambda", "module": "keras.layers", "config": {"function": _FUNCTION}}},
        },
        "wrapped otherwise": {
            "class_name": "SpectralNormalization",
            "module": "keras.layers",
            "config": {"layer": {"class_name": "Lambda", "module": "keras.layers", "config": {"function": _FUNCTION}}},
        },
        "wrapped in a Pipeline": {
            "class_name": "Pipeline",
            "module": "keras.layers",
            "config": {
                "layers": [{"class_name": "Lambda", "module": "keras.layers", "config": {"function": _FUNCTION}}]
            },
        },
    }
    for name, entry in layers.items():

        def layer(folder: Path, entry: dict[str, Any] = entry) -> None:
            config = kind.config(folder)
            old = config["config"]["layers"][-1]
            changed = {**old, **entry}
            changed["config"] = {
                "name": old["config"]["name"],
                "trainable": True,
                "dtype": "float32",
                **entry["config"],
            }
            config["config"]["layers"][-1] = changed
            kind.set_config(folder, config)

        yield Harm("code", f"layer: {name}", kind, layer)
    held = {
        "a lambda": _FUNCTION,
        "a function": {"class_name": "function", "module": "os", "config": "system", "registered_name": "function"},
        "a function of a module": {
            "class_name": "function",
            "module": "canary",
            "config": "sing",
            "registered_name": "function",
        },
        "a class of a module": {"class_name": "Song", "module": "canary", "config": {}, "registered_name": "Song"},
        "a layer with code": {"class_name": "Lambda", "module": "keras.layers", "config": {"function": _FUNCTION}},
    }
    for name, entry in held.items():
        for argument in ("kernel_initializer", "kernel_regularizer", "activation", "dtype"):

            def argued(folder: Path, argument: str = argument, entry: Any = entry) -> None:
                config = kind.config(folder)
                target = next(each for each in config["config"]["layers"] if each["class_name"] in ("Dense", "Conv2D"))
                target["config"][argument] = entry
                kind.set_config(folder, config)

            yield Harm("code", f"{argument}: {name}", kind, argued)


_SIZES = {"compiled": ("units",), "conv": ("filters", "kernel_size"), None: ("units", "filters", "kernel_size")}


def _sizes(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for value in (10**8, 10**30, 2**31, -1, 0, 1.5, "3", None, [10**9, 10**9]):
        for argument in _SIZES[kind.family]:

            def do(folder: Path, argument: str = argument, value: Any = value) -> None:
                config = kind.config(folder)
                for each in config["config"]["layers"]:
                    if argument in each["config"]:
                        each["config"][argument] = value
                        kind.set_config(folder, config)
                        return

            yield Harm("absurd sizes", f"{argument}={value}", kind, do, may_change=True)
    for value in ([None, 10**9, 10**9, 10**9], [10**18, 4], [-5, 4], [], ["a"], [None] * 10**5):

        def shaped(folder: Path, value: Any = value) -> None:
            config = kind.config(folder)
            first = config["config"]["layers"][0]["config"]
            key = "batch_shape" if "batch_shape" in first else "batch_input_shape"
            first[key] = value
            kind.set_config(folder, config)

        yield Harm("absurd sizes", f"input of {str(value)[:40]}", kind, shaped, may_change=True)
    added: dict[str, dict[str, Any]] = {
        "Embedding": {"input_dim": 10**9, "output_dim": 10**3},
        "ZeroPadding2D": {"padding": 10**9},
        "UpSampling2D": {"size": [10**6, 10**6]},
        "RepeatVector": {"n": 10**12},
        "Reshape": {"target_shape": [10**9, 10**9]},
        "MelSpectrogram": {"fft_length": 2**30, "num_mel_bins": 10**6},
        "STFTSpectrogram": {"frame_length": 10**6, "fft_length": 2**28},
        "Discretization": {"num_bins": 10**12},
        "CategoryEncoding": {"num_tokens": 10**12},
        "GRU": {"units": 10**6},
        "MultiHeadAttention": {"num_heads": 10**6, "key_dim": 10**6},
        "Dense": {"units": 4000, "kernel_initializer": {"class_name": "Orthogonal", "config": {}}},
        "RandomCrop": {"height": 10**9, "width": 10**9},
        "StringLookup": {"vocabulary": "/etc/passwd", "max_tokens": 10**12},
    }
    for name, arguments in added.items():

        def instead(folder: Path, name: str = name, arguments: dict[str, Any] = arguments) -> None:
            config = kind.config(folder)
            last = config["config"]["layers"][-1]
            last["class_name"] = name
            if "module" in last:
                last["registered_name"] = None
            last["config"] = {"name": last["config"]["name"], **arguments}
            kind.set_config(folder, config)

        yield Harm("absurd sizes", name, kind, instead, may_change=True)


def _deep(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    def text(name: str, content: Callable[[], str | bytes]) -> Harm:
        return Harm("deep, long and odd", name, kind, lambda folder: kind.set_config(folder, content()))

    yield text("lists in lists", lambda: "[" * 10**5 + "]" * 10**5)
    yield text("dicts in dicts", lambda: '{"config":' * 10**5 + "1" + "}" * 10**5)
    yield text("not UTF-8", lambda: b'{"class_name": "\xff\xfe", "config": {}}')
    yield text("not JSON", lambda: "{'class_name': 1}")
    yield text("nothing", lambda: "")
    yield text("null", lambda: "null")
    yield text("a string", lambda: '"model"')
    yield text("a list", lambda: "[1, 2]")
    yield text("a number of many digits", lambda: '{"class_name": "Sequential", "config": ' + "1" * 10**5 + "}")
    yield text("empty", lambda: '{"class_name": "Functional", "config": {}}')

    def of(name: str, change: Callable[[dict[str, Any]], Any], may_change: bool = False) -> Harm:
        def do(folder: Path) -> None:
            config = kind.config(folder)
            changed = change(config)
            kind.set_config(folder, config if changed is None else changed)

        return Harm("deep, long and odd", name, kind, do, may_change)

    def nested(config: dict[str, Any]) -> dict[str, Any]:
        for _ in range(150):
            entry = {key: config[key] for key in ("class_name", "module", "registered_name") if key in config}
            inside = {**config, "name": "inside"} if "inbound_nodes" not in config else config
            config = {**entry, "class_name": "Sequential", "config": {"name": "outside", "layers": [inside]}}
        return config

    def wrapped(config: dict[str, Any]) -> None:
        last = config["config"]["layers"][-1]
        for _ in range(150):
            inner = copy.copy(last)
            last = {**last, "class_name": "TimeDistributed", "config": {"name": "deep", "layer": inner}}
        config["config"]["layers"][-1] = last

    yield of("models in models", nested)
    yield of("wrappers in wrappers", wrapped)
    odd = (
        "",
        "a" * 10**6,
        "a\0b",
        "\x1b]0;title\x07\x1b[31m",
        "a\nb\u2028c\r",
        "../../x",
        "\ud800",
        "name with spaces",
    )
    for name in odd:

        def called(config: dict[str, Any], name: str = name) -> None:
            entry = config["config"]["layers"][-1]
            entry["config"]["name"] = name
            if "name" in entry:
                entry["name"] = name

        def classed(config: dict[str, Any], name: str = name) -> None:
            config["config"]["layers"][-1]["class_name"] = name

        yield of(f"a layer called {name[:12]!r}", called, may_change=True)
        yield of(f"a class called {name[:12]!r}", classed)
    if kind.family != "compiled":  # a Sequential has no nodes

        def unreachable(config: dict[str, Any]) -> None:
            _sources(config["config"]["layers"][-1], "nowhere")

        def cycle(config: dict[str, Any]) -> None:
            entries = config["config"]["layers"]
            _sources(entries[1], entries[-1]["config"]["name"])

        def itself(config: dict[str, Any]) -> None:
            entry = config["config"]["layers"][-1]
            _sources(entry, entry["config"]["name"])

        def number(config: dict[str, Any]) -> None:
            _sources(config["config"]["layers"][-1], None, 10**9)

        def many(config: dict[str, Any]) -> None:
            config["config"]["layers"][-1]["inbound_nodes"] *= 3000

        yield of("a source that is nowhere", unreachable)
        yield of("a cycle", cycle)
        yield of("a layer on itself", itself)
        yield of("a source of a great number", number)
        yield of("many nodes", many, may_change=True)


def _sources(entry: dict[str, Any], name: str | None, index: int | None = None) -> None:
    """Have a layer take another's outputs, in the words of either Keras."""

    def walk(value: Any) -> Any:
        if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            value[0], value[1] = name or value[0], value[1] if index is None else index
        elif isinstance(value, list):
            for each in value:
                walk(each)
        elif isinstance(value, dict):
            for each in value.values():
                walk(each)

    walk(entry["inbound_nodes"])


def _types(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    values = (None, -1, "x", [], {}, True, 1.5, [[1, 2], 3], {"class_name": "x"}, 10**20, "a" * 1000)
    for number in range(45):
        seed, value = chance.random(), values[number % len(values)]

        def do(folder: Path, seed: float = seed, value: Any = value) -> None:
            config = kind.config(folder)
            places: list[tuple[Any, Any]] = []

            def walk(holder: Any) -> None:
                keys = holder if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
                for key in keys:
                    places.append((holder, key))
                    walk(holder[key])

            walk(config)
            holder, key = places[int(seed * len(places))]
            holder[key] = value
            kind.set_config(folder, config)

        yield Harm("values of another type", f"{str(value)[:20]!r} by {seed:.4f}", kind, do, may_change=True)


def _of_hdf5(kind: Kind) -> Iterator[Harm]:
    """What HDF5 files can reach for, or grow to."""
    if not kind.hdf5_name and kind.path != "model.keras":
        return

    def harm(name: str, change: Callable[[h5py.File, Path], None], may_change: bool = False) -> Harm:
        def do(folder: Path) -> None:
            if kind.path == "model.keras":
                with zipfile.ZipFile(folder / kind.path) as archive:
                    (folder / "inside.h5").write_bytes(archive.read("model.weights.h5"))
                path = folder / "inside.h5"
            else:
                path = kind.hdf5(folder)
            with h5py.File(path, "r+", libver="latest") as file:
                change(file, folder)
            if kind.path == "model.keras":
                repacked(folder / kind.path, {"model.weights.h5": path.read_bytes()}, None)
                path.unlink()

        return Harm("HDF5", name, kind, do, may_change)

    def first(file: h5py.File) -> h5py.Dataset:
        found: list[h5py.Dataset] = []
        file.visititems(lambda _, item: found.append(item) if _is_weight(item) else None)
        return found[0]

    def instead(make: Callable[[h5py.Group, str, Path, tuple[int, ...]], None]) -> Callable[[h5py.File, Path], None]:
        def change(file: h5py.File, folder: Path) -> None:
            weight = first(file)
            group, name, shape = weight.parent, weight.name.rpartition("/")[2], weight.shape
            del group[name]
            make(group, name, folder, shape)

        return change

    def elsewhere(folder: Path, shape: tuple[int, ...]) -> Path:
        with h5py.File(folder / "elsewhere.h5", "w") as other:
            other["kernel"] = np.ones(shape, "float32")
        (folder / "raw").write_bytes(bytes(4 * int(np.prod(shape))))
        return folder / "elsewhere.h5"

    def external(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group[name] = h5py.ExternalLink(str(elsewhere(folder, shape)), "kernel")

    def raw(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        elsewhere(folder, shape)
        group.create_dataset(name, shape, "float32", external=str(folder / "raw"))

    def virtual(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        layout = h5py.VirtualLayout(shape, "float32")
        layout[...] = h5py.VirtualSource(str(elsewhere(folder, shape)), "kernel", shape)
        group.create_virtual_dataset(name, layout)

    def soft(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group[name] = h5py.SoftLink(f"{group.name}/{name}")

    def dangling(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group[name] = h5py.SoftLink("/nowhere")

    def never(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group.create_dataset(name, (10**6, 10**6), "float32", chunks=(1000, 1000))

    def packed(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group.create_dataset(name, (2**26,), "float32", chunks=(2**22,), compression="gzip", fillvalue=0)
        group[name][: 2**22] = 1

    def many(file: h5py.File, folder: Path) -> None:
        group = first(file).parent
        for number in range(200):
            group.create_dataset(f"more{number}", (2**23,), "float32", chunks=(2**20,))

    def listed(file: h5py.File, folder: Path) -> None:
        """As the weights of a layer, where the file lists them."""
        found: list[h5py.Group] = []
        file.visititems(lambda _, item: found.append(item) if "weight_names" in item.attrs else None)
        group = found[0] if found else first(file).parent
        names = [f"more{number}" for number in range(200)]
        for name in names:
            group.create_dataset(name, (2**23,), "float32", chunks=(2**20,))
        group.attrs["weight_names"] = [name.encode() for name in names]

    def strings(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group.create_dataset(name, shape, h5py.string_dtype())

    def compound(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group.create_dataset(name, shape, np.dtype([("a", "f4"), ("b", "S10")]))

    def reference(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group.create_dataset(name, shape, h5py.ref_dtype)

    def group_instead(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group.create_group(name)

    def cycle(file: h5py.File, folder: Path) -> None:
        group = first(file).parent
        group["again"] = file["/"]

    def doubling(file: h5py.File, folder: Path) -> None:
        group = first(file).parent
        for number in range(40):
            inner = file.create_group(f"level{number}")
            group["a"], group["b"] = inner, inner
            group = inner

    def deep(file: h5py.File, folder: Path) -> None:
        group = first(file).parent
        for _ in range(3000):
            group = group.create_group("g")

    def filters(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group.create_dataset(name, (16, 16), "float32", chunks=(4, 4), compression="lzf", data=np.ones((16, 16)))

    def half(group: h5py.Group, name: str, folder: Path, shape: tuple[int, ...]) -> None:
        group[name] = np.ones(shape, "float64")

    for name, make in {
        "an external link": external,
        "external storage": raw,
        "a virtual dataset": virtual,
        "a soft link to itself": soft,
        "a soft link to nowhere": dangling,
        "a dataset never written": never,
        "a compressed dataset": packed,
        "strings for weights": strings,
        "records for weights": compound,
        "references for weights": reference,
        "a group for a weight": group_instead,
        "another shape": filters,
    }.items():
        yield harm(name, instead(make))
    yield harm("another type", instead(half), may_change=True)
    yield harm("a group inside itself", cycle)
    yield harm("groups in two places, again and again", doubling)
    yield harm("groups in groups", deep)
    yield harm("many datasets never written", many, may_change=True)
    yield harm("many datasets never written, as weights", listed)


def _of_archives(kind: Kind) -> Iterator[Harm]:
    if kind.path != "model.keras":
        return

    def harm(name: str, further: Callable[[zipfile.ZipFile], None], may_change: bool = False) -> Harm:
        return Harm("archives", name, kind, lambda folder: repacked(folder / kind.path, {}, further), may_change)

    def entry(name: str, content: bytes = b"x", **attributes: int) -> Callable[[zipfile.ZipFile], None]:
        def write(archive: zipfile.ZipFile) -> None:
            info = zipfile.ZipInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)

        return write

    for name in ("../evil", "/etc/evil", "C:/evil", "..\\evil", "assets/../../evil", "//evil"):
        yield harm(f"an entry {name!r}", entry(name))
    yield harm("a link", entry("assets/link", b"/etc/passwd", external_attr=0o120777 << 16, create_system=3), True)
    yield harm("a bomb", entry("assets/bomb", bytes(2**28)))

    def bombs(archive: zipfile.ZipFile) -> None:
        for number in range(40):
            archive.writestr(f"assets/{number}", bytes(2**25), zipfile.ZIP_DEFLATED)

    def twice(archive: zipfile.ZipFile) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr("config.json", "{}")

    def many(archive: zipfile.ZipFile) -> None:
        for number in range(20_000):
            archive.writestr(f"assets/{number}", b"")

    yield harm("many bombs", bombs)
    yield harm("a member twice", twice)
    yield harm("many members", many, True)

    def large_config(folder: Path) -> None:
        repacked(folder / kind.path, {"config.json": b"[" + b"[]," * 10**7 + b"[]]"}, None)

    def declared(field: int, value: int) -> Callable[[Path], None]:
        """Another number in the directory of the archive; 24 is where the size is, 8 the flags, 10 the method."""

        def do(folder: Path) -> None:
            content = bytearray((folder / kind.path).read_bytes())
            at = content.index(b"PK\x01\x02")
            size = 4 if field == 24 else 2
            content[at + field : at + field + size] = value.to_bytes(size, "little")
            (folder / kind.path).write_bytes(content)

        return do

    def as_npz(folder: Path) -> None:
        content = io.BytesIO()
        np.savez(content, a=np.array([_Song()], object))
        repacked(folder / kind.path, {"model.weights.h5": None, "model.weights.npz": content.getvalue()}, None)

    yield Harm("archives", "a large config", kind, large_config)
    yield Harm("archives", "another size", kind, declared(24, 5))
    yield Harm("archives", "a great size", kind, declared(24, 2**32 - 2))
    yield Harm("archives", "encrypted", kind, declared(8, 1))
    yield Harm("archives", "an unknown method", kind, declared(10, 77))
    yield Harm("archives", "a pickle for weights", kind, as_npz)


class _Song:
    def __reduce__(self) -> Any:
        return (os.open, (CANARY, os.O_CREAT | os.O_WRONLY))


def _of_others(kind: Kind) -> Iterator[Harm]:
    """Pickles under every name, and what is no file at all."""

    def harm(name: str, make: Callable[[Path], None], part: int = 0) -> Harm:
        def do(folder: Path) -> None:
            path = kind.parts(folder)[part]
            path.unlink()
            make(path)

        return Harm("pickles, pipes and links", f"{name} for part {part}", kind, do)

    for part in _parts(kind):
        yield harm("a pickle", lambda path: path.write_bytes(pickle.dumps(_Song())), part)
        yield harm("a pipe", lambda path: os.mkfifo(path), part)
        yield harm("a device", lambda path: path.symlink_to("/dev/zero"), part)
        yield harm("a link to nothing", lambda path: path.symlink_to("nowhere"), part)
        yield harm("a link to itself", lambda path: path.symlink_to(path.name), part)
        yield harm("a folder", lambda path: path.mkdir(), part)
        yield harm("nothing", lambda path: path.touch(), part)
        yield harm("a secret", lambda path: path.symlink_to("/etc/passwd"), part)
