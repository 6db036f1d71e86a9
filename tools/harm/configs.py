"""Configs that ask for absurd sizes, are deep, long or odd, or of other types."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harm.good import Kind
from harm.harm import Harm

_SIZES = {"compiled": ("units",), "conv": ("filters", "kernel_size"), None: ("units", "filters", "kernel_size")}


def sizes(kind: Kind, chance: random.Random) -> Iterator[Harm]:
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


def deep(kind: Kind, chance: random.Random) -> Iterator[Harm]:
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


def types(kind: Kind, chance: random.Random) -> Iterator[Harm]:
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
