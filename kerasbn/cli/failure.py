"""What went wrong, as one line and an exit status."""

from __future__ import annotations

import dataclasses
import traceback
from pathlib import Path
from typing import Any

import click

from kerasbn.errors import KerasBNError, VerificationError, quoted

DONE, NOT_VERIFIED, BAD_INPUT, INTERRUPTED, UNREAD, TERMINATED = 0, 1, 2, 130, 141, 143


@dataclasses.dataclass(frozen=True)
class Failure:
    """What went wrong with a model, or with all there was to do.

    Attributes:
        message: What, in one line.
        status: The exit status that stands for it.
        model: The path of the model, if it is one's.
    """

    message: str
    status: int
    model: Path | None = None

    @classmethod
    def of(cls, error: Exception, model: Path | None = None, *, named: bool = False, verbose: bool = False) -> Failure:
        """An error as a failure.

        Args:
            error: The error.
            model: The path of the model, if it is one's.
            named: Whether the message has to name it.
            verbose: Whether what kerasbn does not raise on purpose is shown in full, on stderr.
        """
        if isinstance(error, KerasBNError):
            message, status = str(error), NOT_VERIFIED if isinstance(error, VerificationError) else BAD_INPUT
        else:
            message, status = _foreign(error), BAD_INPUT
            if verbose:
                click.echo("".join(traceback.format_exception(error)), err=True)
        if named and not message.startswith(repr(str(model))):
            message = f"{str(model)!r}: {message}"
        return cls(message, status, model)

    def told(self) -> int:
        """Tell of it on stderr.

        Returns:
            The exit status.
        """
        return complain(self.message, self.status)

    def to_dict(self) -> dict[str, Any]:
        """The failure as plain data, ready for JSON."""
        return {"source": str(self.model), "error": self.message, "status": self.status}


def _foreign(error: Exception) -> str:
    """What kerasbn does not raise on purpose: the system's own refusals, and faults."""
    if isinstance(error, OSError) and error.strerror:
        return f"{str(error.filename)!r}: {error.strerror}." if error.filename else f"{error.strerror}."
    return f"{type(error).__name__}: {quoted(error)}. Please report this, with what -v prints."


def complain(message: str, status: int) -> int:
    """A line on stderr, and the exit status that goes with it."""
    click.echo(f"kerasbn-rewrite: {' '.join(click.unstyle(message).split())}", err=True)
    return status
