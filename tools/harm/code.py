"""Code that a config would have run."""

from __future__ import annotations

import base64
import marshal
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harm.good import Kind
from harm.harm import CANARY, Harm

_SINGING = f"__import__('os').open({CANARY!r}, 65)"


_CODE = base64.b64encode(marshal.dumps(compile(f"lambda x: {_SINGING}", "file", "eval").co_consts[0])).decode()


_FUNCTION = {"class_name": "__lambda__", "config": {"code": _CODE, "defaults": None, "closure": None}}


def code(kind: Kind, chance: random.Random) -> Iterator[Harm]:
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
