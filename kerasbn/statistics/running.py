"""Running a model on a sample while its layers are looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from kerasbn import _keras
from kerasbn.errors import KerasBNError, OptionError, quoted


@contextlib.contextmanager
def running(model: keras.Model) -> Iterator[None]:
    """Inside, a batch goes through a model: call by call, also in what is compiled, so that each one can be seen.

    Raises:
        OptionError: in the place of whatever the model raises on the batch.
    """
    try:
        with _keras.every_call_made():
            yield
    except KerasBNError:
        raise
    except Exception as error:
        raise OptionError(
            f"Model {model.name!r} cannot be run on option data: {quoted(error)}. Pass a sample of what the model is "
            "called on, without targets."
        ) from error
