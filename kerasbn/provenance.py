"""What a report says of its making: the version of its form, and those of the packages."""

from __future__ import annotations

import importlib.metadata

REPORT_VERSION = 1
"""The version of docs/schemas/report-1.json. What is added to reports leaves it; what goes or means something else
does not."""

_PACKAGES = (
    *("kerasbn", "keras", "tensorflow", "tf2onnx", "onnx", "onnxscript", "onnxruntime"),
    *("ai-edge-litert", "openvino"),  # where they are installed
)


def versions() -> dict[str, str]:
    """The versions of kerasbn and of the packages that it works and writes with."""
    found = {package: list(importlib.metadata.distributions(name=package)) for package in _PACKAGES}
    return {package: distributions[0].version for package, distributions in found.items() if distributions}
