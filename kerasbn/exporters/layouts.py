"""How a model server wants a model to lie in a folder.

tf_serving     1/                    the SavedModel, as version 1
               1/assets.extra/       requests to warm up with
triton         config.pbtxt          what the server has to know
               1/model.onnx          or 1/model.savedmodel
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kerasbn.errors import OptionError
from kerasbn.files.formats import Format, Layout
from kerasbn.verification.interface import Interface, Port
from kerasbn.verification.samples import Sample

_TRITON: Mapping[str, tuple[str, str]] = {
    "onnx": ("onnxruntime_onnx", "model.onnx"),
    "saved_model": ("tensorflow_savedmodel", "model.savedmodel"),
}
"""Triton's platform for each format, and the name that it looks for."""

_TRITON_TYPES: Mapping[str, str] = {
    "bool": "TYPE_BOOL",
    "string": "TYPE_STRING",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    **{f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

_GREATEST_BATCH = 64
"""What Triton is told: it puts requests together up to this, and refuses greater ones."""


def check_warmup(layout: Layout | None) -> None:
    """Refuse to write requests to warm up with where that has no meaning, or cannot be done.

    Raises:
        OptionError: naming the option.
    """
    if layout != "tf_serving":
        raise OptionError("Option warmup is for layout='tf_serving': others have no such records.")
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise OptionError("Option warmup needs the package tensorflow-serving-api: pip install 'kerasbn[serving]'.")


def place_in(folder: Path, layout: Layout | None, kind: Format) -> Path:
    """Where the model goes in a folder, which is made; the folder itself is the place without a layout."""
    if layout is None:
        return folder
    version = folder / "1"
    if layout == "tf_serving":
        folder.mkdir()
        return version
    version.mkdir(parents=True)
    return version / _TRITON[kind][1]


def complete(
    folder: Path, layout: Layout | None, kind: Format, interface: Interface, warmup: Iterable[Sample] = ()
) -> None:
    """Write what a layout wants beside the model."""
    if layout == "triton":
        (folder / "config.pbtxt").write_text("\n".join(_triton_config(kind, interface)) + "\n", encoding="utf-8")
    if samples := list(warmup):
        _write_warmup(folder / "1" / "assets.extra", samples)


def _triton_config(kind: Format, interface: Interface) -> Iterator[str]:
    """The model's configuration as text; its name is that of the folder."""
    is_open = all(port.shape and port.shape[0] is None for port in (*interface.inputs, *interface.outputs))
    yield f'platform: "{_TRITON[kind][0]}"'
    yield f"max_batch_size: {_GREATEST_BATCH if is_open else 0}"
    for side, ports in (("input", interface.inputs), ("output", interface.outputs)):
        yield f"{side} ["
        yield ",\n".join(_triton_port(port, without_batch=is_open) for port in ports)
        yield "]"
    if is_open:
        yield "dynamic_batching { }"


def _triton_port(port: Port, *, without_batch: bool) -> str:
    sizes = port.shape[1:] if without_batch else port.shape
    dims = ", ".join("-1" if size is None else str(size) for size in sizes)
    reshape = "" if sizes else ", reshape { shape: [ ] }"  # Triton wants one axis at least
    name = port.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'  {{ name: "{name}", data_type: {_TRITON_TYPES[port.dtype]}, dims: [ {dims or 1} ]{reshape} }}'


def _write_warmup(folder: Path, samples: Iterable[Sample]) -> None:
    """Requests that TensorFlow Serving runs before it takes others: one for each batch that was verified."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for sample in samples:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "serving_default"
            for name, array in sample.inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
