"""The formats that models are written in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from kerasbn.errors import OptionError

Format = Literal["onnx", "saved_model", "litert", "openvino", "keras"]

Layout = Literal["tf_serving", "triton"]
"""The model servers that want a folder of their own making."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
FORMATS: tuple[Format, ...] = get_args(Format)

_OF_LAYOUT: Mapping[Layout, tuple[Format, ...]] = {
    "tf_serving": ("saved_model",),
    "triton": ("onnx", "saved_model"),
}
"""The formats that each takes, the default first."""

_BY_SUFFIX: dict[str, Format] = {
    ".onnx": "onnx",
    ".tflite": "litert",
    ".xml": "openvino",
    ".keras": "keras",
    "": "saved_model",
}


def format_of(path: Path, layout: Layout | None = None) -> Format:
    """The format that a path's suffix stands for, or a layout where the path is a folder's.

    Raises:
        OptionError: for a suffix that stands for none, and a layout that there is none of.
    """
    if layout is not None and not path.suffix:
        return formats_of(layout)[0]
    if path.suffix not in _BY_SUFFIX:
        raise OptionError(
            f"Cannot tell the format of {str(path)!r} from its suffix {path.suffix!r}: use .onnx, .tflite, .xml, "
            ".keras, or no suffix for the folder of a SavedModel."
        )
    return _BY_SUFFIX[path.suffix]


def suffix_of(kind: Format) -> str:
    """The suffix that stands for a format."""
    return next(suffix for suffix, format_ in _BY_SUFFIX.items() if format_ == kind)


def check_layout(layout: Layout, kind: Format) -> None:
    """Refuse a format that a model server does not take.

    Raises:
        OptionError: for such a format, and a layout that there is none of.
    """
    if kind not in (formats := formats_of(layout)):
        known = " or ".join(map(repr, formats))
        raise OptionError(f"Option layout is {layout!r}, which takes the format {known}, not {kind!r}.")


def formats_of(layout: Layout) -> tuple[Format, ...]:
    """The formats that a model server takes, the default first.

    Raises:
        OptionError: for a layout that there is none of.
    """
    if layout not in _OF_LAYOUT:
        raise OptionError(f"Option layout is {layout!r}; it must be {' or '.join(map(repr, LAYOUTS))}, or None.")
    return _OF_LAYOUT[layout]


def checked_format(name: str, path: Path) -> Format:
    """A format by its name, for a file at `path`.

    Raises:
        OptionError: for a name that stands for none, and a path that the format does not take.
    """
    for format_, suffix, whose in (("keras", ".keras", "Keras"), ("openvino", ".xml", "OpenVINO")):
        if name == format_ and path.suffix != suffix:
            raise OptionError(
                f"Option format is {name!r}, but {str(path)!r} has not the suffix {suffix} that {whose} asks for."
            )
    for known in _BY_SUFFIX.values():
        if name == known:
            return known
    raise OptionError(f"Option format is {name!r}; it must be one of {', '.join(map(repr, _BY_SUFFIX.values()))}.")


def companions_of(kind: Format, path: Path, layout: Layout | None = None) -> tuple[Path, ...]:
    """The files beside the one at `path` that a format may have: the weights, in ONNX where they are large.

    The folder of a layout has all inside: what lies beside it is somebody else's.
    """
    if layout is not None:
        return ()
    match kind:
        case "onnx":
            return (path.with_name(f"{path.name}.data"),)
        case "openvino":
            return (path.with_suffix(".bin"),)
    return ()
