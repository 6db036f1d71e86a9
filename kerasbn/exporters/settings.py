"""What can be said about an export besides the model, the path and the format."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any, Literal, get_args

from kerasbn.errors import OptionError
from kerasbn.exporters.layouts import check_warmup
from kerasbn.files.formats import Format, Layout, check_layout
from kerasbn.options import CustomLayers
from kerasbn.verification.precision import Precision, check_precision

Quantize = Literal["float16", "int8_dynamic", "int8"]
"""Smaller numbers: half of the bits; weights in int8; weights and activations in int8, by ranges that are measured."""

TOLERANCES: Mapping[Quantize, float] = {"float16": 0.01, "int8_dynamic": 0.1, "int8": 0.1}
"""The root mean square of the difference that is allowed, relative to that of the output."""

_QUANTIZED: Mapping[str, tuple[str, ...]] = {
    "onnx": get_args(Quantize),
    "litert": get_args(Quantize),
    "openvino": ("float16",),
}
"""What each format has of them."""

OPSETS = range(13, 19)
"""The opsets that tf2onnx 1.17 writes correctly."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of `kerasbn.export`, which describes them."""

    fold: bool = True
    merge_branches: bool = True
    custom_layers: CustomLayers = "open"
    verify: bool = True
    inputs: Any = None
    names: Mapping[str, str] | None = None
    precision: Precision = "float32"
    opset: int = 17
    frozen: bool = False
    layout: Layout | None = None
    warmup: bool = False
    quantize: Quantize | None = None
    data: Any = None

    @property
    def needs_samples(self) -> bool:
        """Whether the model has to be run on something."""
        return self.verify or self.warmup or self.quantize is not None

    def check(self, kind: Format) -> None:
        """Refuse what is not valid, or has no meaning for a format.

        Raises:
            OptionError: naming the option.
        """
        if self.opset not in OPSETS:
            raise OptionError(f"Option opset is {self.opset!r}; it must be from {OPSETS.start} to {OPSETS.stop - 1}.")
        check_precision(self.precision)
        if kind == "keras" and self.names:
            raise OptionError("Option names is for serving formats: a .keras file has the names of the model's layers.")
        if kind != "saved_model" and self.frozen:
            raise OptionError(f"Option frozen is for SavedModels, the format is {kind!r}.")
        if self.layout is not None:
            check_layout(self.layout, kind)
        if self.warmup:
            check_warmup(self.layout)
        self._check_quantize(kind)
        if kind == "openvino" and importlib.util.find_spec("openvino") is None:
            raise OptionError(
                "Format 'openvino' needs OpenVINO, which is not installed: pip install 'kerasbn[openvino]'."
            )
        if kind == "litert" and self.verify and importlib.util.find_spec("ai_edge_litert") is None:
            raise OptionError(
                "Format 'litert' is verified in LiteRT's own interpreter, which is not installed: pip install "
                "'kerasbn[litert]'. With verify=False (--no-verify on the command line) it is written without."
            )

    def _check_quantize(self, kind: Format) -> None:
        if self.quantize is None:
            if self.data is not None:
                raise OptionError("Option data is for quantize='int8'. To verify with examples, pass inputs=.")
            return
        if self.quantize not in get_args(Quantize):
            known = ", ".join(map(repr, get_args(Quantize)))
            raise OptionError(f"Option quantize is {self.quantize!r}; it must be None or one of {known}.")
        if self.quantize not in _QUANTIZED.get(kind, ()):
            formats = ", ".join(repr(each) for each, kinds in _QUANTIZED.items() if self.quantize in kinds)
            raise OptionError(
                f"Option quantize={self.quantize!r} is for the formats {formats}; the format is {kind!r}."
            )
        if self.quantize == "int8" and self.data is None and self.inputs is None:
            raise OptionError(
                "Option quantize='int8' needs data to measure the ranges of activations on: pass data=, some hundred "
                "examples of what the model will be served (--calibrate or --data on the command line)."
            )
