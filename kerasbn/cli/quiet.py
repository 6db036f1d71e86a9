"""Keep TensorFlow's own messages out of the command's output."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def tensorflow_imported_quietly(verbose: bool) -> Iterator[None]:
    """Import TensorFlow and Keras, which write to stderr from C++ before any setting can stop them."""
    if verbose:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _stderr_closed():
        import tensorflow  # noqa: F401
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def stderr_for_python_alone(verbose: bool) -> Iterator[None]:
    """Drop what converters write to stderr from C++: Python writes to a copy of it. For a process of one's own."""
    before: Any = sys.stderr
    if verbose or before is None or before != sys.__stderr__:
        yield
        return
    with open(os.dup(2), "w", encoding=before.encoding, errors=before.errors, buffering=1) as copy, _stderr_closed():
        sys.stderr = copy
        try:
            yield
        finally:
            sys.stderr = before


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
