"""The module for each format, imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import keras

from kerasbn.exporters.settings import Settings
from kerasbn.files.formats import Format
from kerasbn.verification.interface import Arrays, Interface


class Writer(Protocol):
    """What a module for a format holds."""

    def write(self, model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
        """Write a model, and count what it is made of."""

    def runner(self, path: Path, model: keras.Model, interface: Interface) -> Callable[[Arrays], Arrays]:
        """A function that runs what was written, of a model that was served so."""


def writer_of(kind: Format) -> Writer:
    """The module that writes a format."""
    match kind:
        case "onnx":
            from kerasbn.exporters import onnx_file

            return onnx_file
        case "saved_model":
            from kerasbn.exporters import saved_model

            return saved_model
        case "litert":
            from kerasbn.exporters import litert_file

            return litert_file
        case "openvino":
            from kerasbn.exporters import openvino_file

            return openvino_file
        case "keras":
            from kerasbn.exporters import keras_file

            return keras_file


class Quantizer(Protocol):
    """What a module for quantized files of a format holds."""

    def quantize(
        self, model: keras.Model, interface: Interface, path: Path, settings: Settings, batches: Sequence[Arrays]
    ) -> int:
        """Put a quantized file in the place of one that is right, and count what it is made of."""


def quantizer_of(kind: Format) -> Quantizer:
    """The module that quantizes a format."""
    match kind:
        case "litert":
            from kerasbn.exporters import litert_file

            return litert_file
        case "openvino":
            from kerasbn.exporters import openvino_file

            return openvino_file
    from kerasbn.exporters import onnx_quantization

    return onnx_quantization
