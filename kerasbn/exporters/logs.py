"""What the packages that write files log is for their developers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_logs() -> Iterator[None]:
    """Keep what tf2onnx, onnxscript and TensorFlow log in this thread from whoever handles logs; all else goes on.

    tf2onnx writes to the root logger too, which would get a handler for good if it had none.
    """
    thread = threading.get_ident()

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    root, nowhere = logging.getLogger(), logging.NullHandler()
    handlers = {handler for name in ("", "tf2onnx", "tensorflow") for handler in logging.getLogger(name).handlers}
    root.addHandler(nowhere)
    for handler in handlers:
        handler.addFilter(from_elsewhere)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(from_elsewhere)
        root.removeHandler(nowhere)
