"""Whether an ONNX file is valid."""

from __future__ import annotations

from pathlib import Path

import onnx

from kerasbn.errors import VerificationError, quoted


def check_file(path: Path, what: str) -> None:
    """Check a file with ONNX's own checker.

    Raises:
        VerificationError: if it is not valid.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"{what} is not valid: {quoted(error)}. The file was not kept.") from error
