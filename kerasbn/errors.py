"""The errors that kerasbn raises. Each message names the thing at fault, the cause, and the remedy."""

from __future__ import annotations

import re
import textwrap
import traceback
from collections.abc import Iterable
from pathlib import Path

_HOW_A_GRAPH_WAS_MADE = r'(Graph execution error:\s*)?Detected at node .*?call last\):\n(\s*File "[^\n]*\n)*\s*'

_WHICH_CONFIG_WAS_READ = (
    r"(Error when deserializing class|.{1,80} could not be deserialized properly).*Exception encountered: "
)
_WHOSE_CONFIG = (
    r"(?:'class_name': '(?:\w+>)?(?P<kind>\w+)', 'config': |class '(?P<kind_too>\w+)' using config=)"
    r"\{'name': '(?P<name>[^']*)'"
)


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


class ProcessError(KerasBNError):
    """Of several processes that share a computation, another one failed or is gone."""


def quoted(error: BaseException) -> str:
    """Another library's message as one line of plain text, to be quoted in ours. The end of a long one is cut.

    What TensorFlow says at length ahead of the cause of how the graph was made is left out, and of the config that
    Keras read all but the class and the name of the layer.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", _message_of(error))
    plain = re.sub(_HOW_A_GRAPH_WAS_MADE, "", plain, flags=re.DOTALL)
    plain = re.sub(_WHICH_CONFIG_WAS_READ, _owner, plain, flags=re.DOTALL)
    return textwrap.shorten(plain, 400, placeholder=" ...").rstrip(".") or type(error).__name__


def _message_of(error: BaseException) -> str:
    """What an error says; a `KeyError` mostly says the key alone."""
    if isinstance(error, KeyError) and error.args:
        key = str(error.args[0])
        return key if " " in key else f"{key!r} is missing"
    return str(error)


def _owner(read: re.Match[str]) -> str:
    """Whose config was read last, of those that are one in another: `"Dense 'fc1': "`."""
    *_, innermost, _ = read[0].split("Exception encountered: ")
    found = re.search(_WHOSE_CONFIG, innermost)
    return f"{found['kind'] or found['kind_too']} {found['name']!r}: " if found else ""


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names in one line: `"'a', 'b' and 5 more"`."""
    every = [*map(repr, names)]
    rest = len(every) - most
    return ", ".join(every) if rest <= 1 else f"{', '.join(every[:most])} and {rest} more"


def by_path(glob: str, example: str) -> str:
    """How layers are matched, for a glob that matches none."""
    path, is_call_site, _ = glob.partition("#")
    told = f"Layers are matched by their path, such as {example!r}."
    return f"{told} {glob!r} is a call site: the path of its layer is {path!r}." if is_call_site else told


def line_of(error: BaseException) -> str:
    """The line of the user's code at which an error arose."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parent)
    own = [frame for frame in frames if "site-packages" not in frame.filename and package not in frame.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno} ({frame.line})"
