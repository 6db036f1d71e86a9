"""Keep the messages of TensorFlow and its kin out of the command's output."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from kerasbn.errors import OptionError

_LOGGERS = ("tensorflow", "absl", "jax", "torch")


@contextlib.contextmanager
def keras_imported_quietly(verbose: bool = False, backend: str | None = None) -> Iterator[None]:
    """Import Keras and what it runs on, which write to stderr from C++ before any setting can stop them.

    Args:
        verbose: Whether they may.
        backend: What Keras is to run on, `None` for what it says itself.

    Raises:
        OptionError: if Keras runs on something else in this process already.
    """
    if backend is not None and "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.nullcontext() if verbose else _stderr_closed():
        import keras
    if backend not in (None, running := keras.backend.backend()):
        raise OptionError(f"Option --backend is {backend!r}, but Keras runs on {running} in this process already.")
    if verbose:
        yield
        return
    for logger in _LOGGERS:
        logging.getLogger(logger).setLevel(logging.ERROR)
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
