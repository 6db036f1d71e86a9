"""Write models for serving: ONNX, SavedModel, LiteRT, OpenVINO, `.keras`, each checked against the Keras model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kerasbn.errors import UnsupportedModelError
from kerasbn.exporters.report import ExportReport as ExportReport
from kerasbn.exporters.settings import Quantize, Settings
from kerasbn.exporters.writing import write_and_verify
from kerasbn.files.formats import Format, Layout, checked_format, companions_of, format_of
from kerasbn.files.staging import staged
from kerasbn.options import CustomLayers
from kerasbn.verification.precision import Precision


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002
    fold: bool = True,
    merge_branches: bool = True,
    custom_layers: CustomLayers = "open",
    verify: bool = True,
    inputs: Any = None,
    names: Mapping[str, str] | None = None,
    precision: Precision = "float32",
    opset: int = 17,
    frozen: bool = False,
    layout: Layout | None = None,
    warmup: bool = False,
    overwrite: bool = False,
    quantize: Quantize | None = None,
    data: Any = None,
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
        path: Where to write. The suffix decides the format: `.onnx`, `.tflite`, `.xml` (OpenVINO, with the weights
            in `.bin` beside it), `.keras`, none for the folder of a SavedModel.
        format: `"onnx"`, `"saved_model"`, `"litert"`, `"openvino"` or `"keras"`. Defaults to what the suffix says.
        fold: Whether to fold batch normalization as `kerasbn.fold` does; the model itself stays as
            it is. Defaults to `True`, in a `.keras` file too: use `False` for one to train further.
        merge_branches: Whether, where it is folded, parallel linear branches become one layer, as in
            `kerasbn.fold`. Defaults to `True`.
        custom_layers: Whether layers of the user's own that hold batch normalization are opened to
            fold it, or kept whole: `"open"` or `"keep"`. Defaults to `"open"`.
        verify: Whether to run the written model against the Keras model as it was given, at batch 1 and at a larger
            one, and at two sizes of every other axis that is open. An axis along which the model itself runs at one
            size only is written with that size, which the report's `notes` say. Defaults to `True`.
        inputs: A batch of inputs to verify with, in the model's structure or by name; of a subclassed model also what
            it is called on. Defaults to random ones (words of the model's vocabularies where it takes strings), and to
            what it was built for.
        names: Other names for some inputs and outputs: a dictionary by the model's own. Defaults to `None`.
        precision: `"float32"`: the model computes in float32 whatever its layers say, and its inputs and outputs of
            other floating types are float32. `"keep"` leaves types as they are. Defaults to `"float32"`.
        opset: The ONNX opset, from 13 to 18. Defaults to 17.
        frozen: Of a SavedModel, whether its weights are constants of the graph: up to a tenth faster on a CPU, but
            writing it takes many times the memory. Defaults to `False`: variables.
        layout: How a model server wants it, in a folder at `path`: `"tf_serving"` (a SavedModel as version 1), or
            `"triton"` (version 1 as ONNX, or as SavedModel if `format` says so, with a `config.pbtxt`). Defaults to
            `None`: the model alone.
        warmup: Whether TensorFlow Serving finds requests to warm up with: the batches that are verified. Needs the
            extra `kerasbn[serving]`. Defaults to `False`.
        overwrite: Whether an existing file or folder may be replaced. Defaults to `False`.
        quantize: Of an ONNX or LiteRT file, once it is right in float32: `"float16"` for half the size (OpenVINO too);
            `"int8_dynamic"` for weights in int8, where nothing is known of the inputs; `"int8"` for activations as
            well, the fastest; ONNX Runtime's is meant for CPUs with VNNI. The root mean square of the difference may
            be 0.01, 0.1 and 0.1 of the output's. Defaults to `None`.
        data: What the ranges of activations are measured on for `"int8"`: arrays in the structure of the model's
            inputs, a `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches, of which the first 32 count.
            It serves in the place of `inputs` as well, as those do in its place. Defaults to `None`.

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
    kind = format_of(target, layout) if format is None else checked_format(format, target)
    settings = Settings(
        fold=fold,
        merge_branches=merge_branches,
        custom_layers=custom_layers,
        verify=verify,
        inputs=inputs,
        names=names,
        precision=precision,
        opset=opset,
        frozen=frozen,
        layout=layout,
        warmup=warmup,
        quantize=quantize,
        data=data,
    )
    with staged(target, overwrite=overwrite, companions=companions_of(kind, target, layout)) as temporary:
        return write_and_verify(model, target, temporary, kind, settings)
