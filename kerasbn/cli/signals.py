"""Being told to end, by a signal: what is under way is cleaned up, and that is not interrupted."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

PATIENCE = 5.0
"""The seconds for which cleaning up is not interrupted: who presses Ctrl-C twice does not want half of it left behind.
One that hangs can be ended after them."""


class Terminated(KeyboardInterrupt):
    """Someone has asked for an end, with SIGTERM, and gets what Ctrl-C gets: all is cleaned up."""


class _Ending:
    """Handles the signals: each ends what is under way, but for those that come soon after another."""

    def __init__(self) -> None:
        self._deaf_until = -float("inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now >= self._deaf_until:
            self._deaf_until = now + PATIENCE
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at Ctrl-C, and `Terminated`, a kind of it, at SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _Ending()
    before = {number: signal.signal(number, ending) for number in _ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ending_signals() -> Iterator[int]:
    """Those that ask for an end: on Windows, where no SIGTERM comes from other processes, Ctrl-Break does.

    Where Ctrl-C is not Python's to handle, as in the background of a shell, it stays as it is.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        yield signal.SIGINT
    for name in ("SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            yield getattr(signal, name)
