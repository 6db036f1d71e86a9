"""The errors that kerasbn raises. Each message names the thing at fault, the cause, and the remedy."""

from __future__ import annotations

import re
import textwrap


class KerasBNError(Exception):
    """Base class of every error that kerasbn raises on purpose."""


class UnsupportedModelError(KerasBNError):
    """The model holds something that kerasbn cannot carry over faithfully."""


class ModelFileError(KerasBNError):
    """A model file cannot be read, or an output cannot be written."""


class VerificationError(KerasBNError):
    """A written or rewritten model does not compute what its source computes."""


class OptionError(KerasBNError):
    """An option has a value that is not valid, or that does not fit the model."""


def quoted(error: BaseException) -> str:
    """Another library's message as one line of plain text, to be quoted in ours. The end of a long one is cut."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return textwrap.shorten(plain, 400, placeholder=" ...").rstrip(".") or type(error).__name__
