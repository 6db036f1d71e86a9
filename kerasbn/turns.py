"""Threads take turns at what they would undo for each other.

Keras records symbolic calls on the layers themselves, and lets a layer compute in another type only by a change of the
layer; the recursion limit is all of Python's; tf2onnx keeps the functions that it converts in its modules. Each is set
back once a verb is through, so no two verbs that read or change any of it may be under way at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_LOCK = threading.RLock()  # one verb calls another


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """What goes on inside, or in a function that this decorates, goes on in one thread at a time."""
    with _LOCK:
        yield
