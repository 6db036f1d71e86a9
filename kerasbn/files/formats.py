"""The formats that models are written in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kerasbn.errors import OptionError

Format = Literal["onnx", "saved_model", "keras"]

_BY_SUFFIX: dict[str, Format] = {".onnx": "onnx", ".keras": "keras", "": "saved_model"}


def format_of(path: Path) -> Format:
    """The format that a path's suffix stands for.

    Raises:
        OptionError: for a suffix that stands for none.
    """
    if path.suffix not in _BY_SUFFIX:
        raise OptionError(
            f"Cannot tell the format of {str(path)!r} from its suffix {path.suffix!r}: use .onnx, .keras, or no suffix "
            "for the folder of a SavedModel."
        )
    return _BY_SUFFIX[path.suffix]


def checked_format(name: str, path: Path) -> Format:
    """A format by its name, for a file at `path`.

    Raises:
        OptionError: for a name that stands for none, and a path that Keras does not take.
    """
    if name == "keras" and path.suffix != ".keras":
        raise OptionError(f"Option format is 'keras', but {str(path)!r} has not the suffix .keras that Keras asks for.")
    for known in _BY_SUFFIX.values():
        if name == known:
            return known
    raise OptionError(f"Option format is {name!r}; it must be one of {', '.join(map(repr, _BY_SUFFIX.values()))}.")
