"""What an export answers with."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how well it matches.

    Attributes:
        path: Where.
        format: `"onnx"`, `"saved_model"`, `"litert"`, `"openvino"` or `"keras"`.
        bytes: The size of the file and what belongs to it beside it, or of all files of the folder.
        seconds: How long it took, verification included.
        nodes: The number of nodes of the graph; of layers in a `.keras` file.
        folded: How many calls of batch normalization were folded into other layers.
        kept: How many were not, by the value of their `Reason`. Empty if folding was not asked for.
        max_error: The greatest difference from the Keras model's outputs, relative to the greatest
            output. `None` if it was not verified.
        quantize: How it was quantized; then `max_error` is that of the quantized file.
        inputs: The type and shape of each input, by name.
        outputs: The type and shape of each output, by name.
        notes: What differs from the model's own inputs and outputs, in words.
        versions: The versions of the packages that wrote it.
    """

    path: Path
    format: str
    bytes: int
    seconds: float
    nodes: int
    folded: int
    kept: dict[str, int]
    max_error: float | None
    quantize: str | None
    inputs: dict[str, str]
    outputs: dict[str, str]
    notes: tuple[str, ...]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}


def versions() -> dict[str, str]:
    """The versions of kerasbn and of the packages that it writes with."""
    packages = (
        *("kerasbn", "keras", "tensorflow", "tf2onnx", "onnx", "onnxscript", "onnxruntime"),
        *("ai-edge-litert", "openvino"),  # where they are installed
    )
    found = {package: list(importlib.metadata.distributions(name=package)) for package in packages}
    return {package: distributions[0].version for package, distributions in found.items() if distributions}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is neither."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
