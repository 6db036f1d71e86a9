"""What can be said about an export besides the model, the path and the format."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

from kerasbn.errors import OptionError
from kerasbn.exporters.layouts import check_warmup
from kerasbn.files.formats import Format, Layout, check_layout
from kerasbn.options import CustomLayers
from kerasbn.verification.precision import Precision, check_precision

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
        if kind == "litert" and self.verify and importlib.util.find_spec("ai_edge_litert") is None:
            raise OptionError(
                "Format 'litert' is verified in LiteRT's own interpreter, which is not installed: pip install "
                "'kerasbn[litert]'. With verify=False (--no-verify on the command line) it is written without."
            )
