"""What is wrong with a file, and what can be done about it, in one line."""

from __future__ import annotations

import json
import re
import struct
import zlib

from kerasbn.errors import KerasBNError, quoted

_MALFORMED = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RecursionError),
    *(TypeError, UnicodeError, json.JSONDecodeError, struct.error, zlib.error),
)
"""What arises where something else is read than what Keras writes."""

_UNKNOWN = (
    r"(?P<owner>\w+ '[^']*': )?"
    r"(?:Could not interpret (?P<used>[\w ]+) identifier: '?|(?:Could not locate (?P<kind>\w+)|Unknown [\w ]+:) ')"
    r"(?P<name>[\w>.]*\w)"
)
"""What Keras says where it does not know a name, and of which layer."""

_LONGEST = 800
NOT_COMPILED = "The model is not compiled: what it was compiled with cannot be read"
"""The start of a note on a model that is read without."""


def cause(error: Exception) -> str:
    """What another library, or Python, has to say about a file; our own errors as they are."""
    if isinstance(error, KerasBNError):
        return str(error).rstrip(".")
    message = quoted(error)
    if "safe_mode" in message or "unsafe" in message:
        return "it holds code (a Lambda layer). If you trust its source, allow that with safe=False (--unsafe)"
    if unknown := re.search(_UNKNOWN, message):
        what = unknown["used"] or unknown["kind"] or "class"
        return f"{unknown['owner'] or ''}it needs {missing(unknown['name'], what)}"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, _MALFORMED):
        return f"what it says is damaged, or not as Keras writes it ({type(error).__name__}: {message})"
    return message


def line(message: str) -> str:
    """A message as one line that can be read, whatever a file has put in it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in message)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST // 2]} ... {plain[-_LONGEST // 2 :]}"


def missing(name: str, what: str = "class") -> str:
    """What to say of a class or function that is not there."""
    plain = name.rpartition(">")[2]
    return (
        f"the {what} {name!r}, which is neither Keras 3's nor registered here. Pass custom_objects={{{plain!r}: ...}}, "
        f"or on the command line --import with the module that registers it, or --custom-objects MODULE:{plain}"
    )
