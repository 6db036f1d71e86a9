"""Write models for serving: ONNX, SavedModel and `.keras`, each one checked against the Keras model."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import keras

from kerasbn.errors import KerasBNError, UnsupportedModelError, VerificationError, quoted
from kerasbn.exporters import keras_file
from kerasbn.exporters.report import ExportReport as ExportReport
from kerasbn.exporters.report import size_of, versions
from kerasbn.exporters.served import served
from kerasbn.files.formats import Format, checked_format, format_of
from kerasbn.files.staging import staged
from kerasbn.options import CustomLayers
from kerasbn.turns import in_turn
from kerasbn.verification.parity import check_parity


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002
    fold: bool = True,
    custom_layers: CustomLayers = "open",
    verify: bool = True,
    inputs: Any = None,
    opset: int = 17,
    overwrite: bool = False,
) -> ExportReport:
    """Write a model for serving, and check what was written.

    The written graph runs in inference mode: Dropout, noise and random augmentation are off, and
    batch normalization is folded into other layers where that is exact. Its inputs and outputs have
    the model's own names, its batch is open. Threads that export, rewrite or fold take turns; while it
    is written, a model in half precision computes in float32, for whoever else uses it as well.

    Example:

    ```python
    report = kerasbn.export(model, "digits.onnx")
    ```

    Args:
        model: A Keras model: Sequential, Functional, or subclassed and called before. Of a subclassed
            one the graph of its call at inference is written, in a `.keras` file too, without its
            class and its own way of training.
        path: Where to write. The suffix decides the format: `.onnx`, `.keras`, none for the folder
            of a SavedModel.
        format: `"onnx"`, `"saved_model"` or `"keras"`. Defaults to what the suffix says.
        fold: Whether to fold batch normalization as `kerasbn.fold` does; the model itself stays as
            it is. Defaults to `True`, in a `.keras` file too: use `False` for one to train further.
        custom_layers: Whether layers of the user's own that hold batch normalization are opened to
            fold it, or kept whole: `"open"` or `"keep"`. Defaults to `"open"`.
        verify: Whether to run the written model against the Keras model as it was given, at batch 1
            and at a larger one. Defaults to `True`.
        inputs: A batch of inputs to verify with, in the model's structure; of a subclassed model also what it is
            called on. Defaults to random ones, and to what it was built for.
        opset: The ONNX opset, from 13 to 18. Defaults to 17.
        overwrite: Whether an existing file or folder may be replaced. Defaults to `False`.

    Returns:
        An `ExportReport`.

    Raises:
        OptionError: if an option is not valid.
        ModelFileError: if the path exists and `overwrite` is not set, or cannot be written.
        UnsupportedModelError: if the model cannot be written in this format.
        VerificationError: if the written model is not valid, or computes something else. It is not
            left behind.
    """
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(f"Expected a Keras 3 model to export, got {type(model).__name__}.")
    target = Path(path)
    kind = format_of(target) if format is None else checked_format(format, target)
    with staged(target, overwrite=overwrite) as temporary:
        return write_and_verify(
            *(model, target, temporary, kind),
            fold=fold,
            custom_layers=custom_layers,
            verify=verify,
            inputs=inputs,
            opset=opset,
        )


@in_turn()
def write_and_verify(
    model: keras.Model,
    target: Path,
    temporary: Path,
    kind: Format,
    *,
    fold: bool = True,
    custom_layers: CustomLayers = "open",
    verify: bool = True,
    inputs: Any = None,
    opset: int = 17,
) -> ExportReport:
    """Write a model to `temporary`, which will be moved to `target`. Arguments and errors as in `export`."""
    started = time.perf_counter()
    with served(model, fold=fold, custom_layers=custom_layers, example=inputs) as what:
        try:
            nodes = _write(what.model, temporary, kind, opset)
        except (KerasBNError, OSError):
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"Model {model.name!r} cannot be written as {kind}: {quoted(error)}."
            ) from error
        max_error = None
        if verify:
            try:
                run = _runner(what.model, temporary, kind)
            except Exception as error:
                raise VerificationError(
                    f"{target} cannot be loaded again: {quoted(error)}. Nothing was kept."
                ) from error
            max_error = check_parity(what.whole, run, str(target), inputs=inputs)
    return ExportReport(
        path=target,
        format=kind,
        bytes=size_of(temporary),
        seconds=time.perf_counter() - started,
        nodes=nodes,
        folded=what.folded,
        kept=what.kept,
        max_error=max_error,
        versions=versions(),
    )


def _write(model: keras.Model, path: Path, kind: Format, opset: int) -> int:
    match kind:
        case "onnx":
            from kerasbn.exporters import onnx_file

            return onnx_file.write(model, path, opset=opset)
        case "saved_model":
            from kerasbn.exporters import saved_model

            return saved_model.write(model, path)
        case "keras":
            return keras_file.write(model, path)


def _runner(model: keras.Model, path: Path, kind: Format) -> Any:
    match kind:
        case "onnx":
            from kerasbn.exporters import onnx_file

            return onnx_file.runner(path)
        case "saved_model":
            from kerasbn.exporters import saved_model

            return saved_model.runner(path)
        case "keras":
            return keras_file.runner(path, model)
