"""Write models for serving: ONNX, SavedModel, LiteRT, OpenVINO, `.keras`, each checked against the Keras model."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import keras

from kerasbn.errors import KerasBNError, UnsupportedModelError, VerificationError, quoted
from kerasbn.exporters import keras_file
from kerasbn.exporters.layouts import complete, place_in
from kerasbn.exporters.report import ExportReport as ExportReport
from kerasbn.exporters.report import size_of, versions
from kerasbn.exporters.served import served
from kerasbn.exporters.settings import TOLERANCES, Quantize, Settings
from kerasbn.files.formats import Format, Layout, checked_format, companions_of, format_of
from kerasbn.files.staging import staged
from kerasbn.options import CustomLayers
from kerasbn.statistics.data import batches
from kerasbn.turns import in_turn
from kerasbn.verification.interface import Arrays, Interface, input_tensors, interface_of, output_tensors
from kerasbn.verification.parity import check_likeness, check_parity
from kerasbn.verification.precision import Precision, other_precisions
from kerasbn.verification.samples import Settled, settled

_MOST_BATCHES = 32


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
    with staged(target, overwrite=overwrite, companions=companions_of(kind, target)) as temporary:
        return write_and_verify(model, target, temporary, kind, settings)


@in_turn()
def write_and_verify(
    model: keras.Model, target: Path, temporary: Path, kind: Format, settings: Settings
) -> ExportReport:
    """Write a model to `temporary`, of the name of `target` where it will be moved to. Errors as in `export`."""
    started = time.perf_counter()
    settings.check(kind)
    _check_backend(kind, target)
    writer = _writer(kind)
    folding: Mapping[str, Any] = {
        "fold": settings.fold,
        "merge_branches": settings.merge_branches,
        "custom_layers": settings.custom_layers,
    }
    with served(model, **folding, example=settings.inputs) as what:
        interface = interface_of(what.whole, settings.names, settings.precision)
        measured = list(_batches(what.whole, interface, settings))
        inputs = measured[0] if settings.inputs is None and measured else settings.inputs
        needed = settings.verify or settings.warmup or settings.quantize is not None
        ready = settled(what.whole, interface, inputs) if needed else Settled(interface, (), {})
        place = place_in(temporary, settings.layout, kind)

        def write(how: Callable[..., int], *more: Any) -> int:
            try:
                return how(what.model, ready.interface, place, settings, *more)
            except (KerasBNError, OSError):
                raise
            except Exception as error:
                raise UnsupportedModelError(
                    f"Model {model.name!r} cannot be written as {kind}: {quoted(error)}."
                ) from error

        def verified(check: Callable[..., float]) -> float | None:
            if not settings.verify:
                return None
            try:
                run = writer.runner(place, what.model, ready.interface)
            except Exception as error:
                raise VerificationError(
                    f"{target} cannot be loaded again: {quoted(error)}. Nothing was kept."
                ) from error
            return check(run, str(target), ready.samples)

        nodes = write(writer.write)
        max_error = verified(functools.partial(check_parity, what.whole, ready.interface))
        if settings.quantize is not None:
            nodes = write(_quantizer(kind).quantize, measured or [ready.samples[0].inputs])
            max_error = verified(functools.partial(check_likeness, tolerance=TOLERANCES[settings.quantize]))
        complete(temporary, settings.layout, kind, ready.interface, ready.samples if settings.warmup else ())
    return ExportReport(
        path=target,
        format=kind,
        bytes=sum(size_of(each) for each in (temporary, *companions_of(kind, temporary)) if each.exists()),
        seconds=time.perf_counter() - started,
        nodes=nodes,
        folded=what.folded,
        kept=what.kept,
        max_error=max_error,
        quantize=settings.quantize,
        inputs={port.name: str(port) for port in ready.interface.inputs},
        outputs={port.name: str(port) for port in ready.interface.outputs},
        notes=tuple(_notes(what.whole, ready)),
        versions=versions(),
    )


def _batches(model: keras.Model, interface: Interface, settings: Settings) -> Iterator[Arrays]:
    """The data that a model is quantized by, by the names of its inputs and in the types that they are served in."""
    if settings.data is None:
        return
    for batch in islice(batches(model, settings.data, "Quantizing"), _MOST_BATCHES):
        yield {
            port.name: keras.ops.convert_to_numpy(array).astype(port.dtype)
            for port, array in zip(interface.inputs, batch, strict=True)
        }


class _Writer(Protocol):
    """What a module for a format holds."""

    def write(self, model: keras.Model, interface: Interface, path: Path, settings: Settings) -> int:
        """Write a model, and count what it is made of."""

    def runner(self, path: Path, model: keras.Model, interface: Interface) -> Callable[[Arrays], Arrays]:
        """A function that runs what was written, of a model that was served so."""


def _writer(kind: Format) -> _Writer:
    match kind:
        case "onnx":
            from kerasbn.exporters import onnx_file

            return onnx_file
        case "saved_model":
            from kerasbn.exporters import saved_model

            return saved_model
        case "litert":
            from kerasbn.exporters import litert_file

            return litert_file
        case "openvino":
            from kerasbn.exporters import openvino_file

            return openvino_file
        case "keras":
            return keras_file


class _Quantizer(Protocol):
    """What a module for quantized files of a format holds."""

    def quantize(
        self, model: keras.Model, interface: Interface, path: Path, settings: Settings, batches: Sequence[Arrays]
    ) -> int:
        """Put a quantized file in the place of one that is right, and count what it is made of."""


def _quantizer(kind: Format) -> _Quantizer:
    match kind:
        case "litert":
            from kerasbn.exporters import litert_file

            return litert_file
        case "openvino":
            from kerasbn.exporters import openvino_file

            return openvino_file
    from kerasbn.exporters import onnx_quantization

    return onnx_quantization


def _check_backend(kind: Format, target: Path) -> None:
    if kind != "keras" and keras.backend.backend() != "tensorflow":
        raise UnsupportedModelError(
            f"A model is written as {kind} under TensorFlow, and Keras runs on {keras.backend.backend()} here. Weights "
            "are the same everywhere: save it, model.save('model.keras'), and export that file: "
            f"KERAS_BACKEND=tensorflow kerasbn-rewrite model.keras -o {target} --position none"
        )


def _notes(model: keras.Model, ready: Settled) -> Iterator[str]:
    """What differs from the model's own interface."""
    for (name, axis), size in ready.fixed.items():
        yield f"axis {axis} of input {name!r} is written as {size}, the one size that the model was seen to run at"
    tensors = (*input_tensors(model).values(), *output_tensors(model).values())
    ports = (*ready.interface.inputs, *ready.interface.outputs)
    for port, tensor in zip(ports, tensors, strict=True):
        if port.dtype != tensor.dtype:
            yield f"{port.name!r} is {port.dtype} instead of {tensor.dtype}"
    if others := other_precisions(model, ready.interface.precision):
        yield f"computed in float32 instead of {', '.join(others)}"
