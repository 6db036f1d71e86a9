"""ONNX files with smaller numbers, through the tools that come with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import onnx

from kerasbn.errors import UnsupportedModelError
from kerasbn.exporters.logs import silent_logs
from kerasbn.exporters.onnx_check import check_file
from kerasbn.exporters.settings import Settings
from kerasbn.files.formats import companions_of
from kerasbn.files.staging import scratch_beside
from kerasbn.verification.interface import Arrays, Interface


def quantize(
    model: keras.Model, interface: Interface, path: Path, settings: Settings, batches: Sequence[Arrays]
) -> int:
    """Put a quantized file in the place of an ONNX file that is right.

    Args:
        model: The Keras model.
        interface: How it is served.
        path: The file.
        settings: Say how to quantize it.
        batches: What the ranges of activations are measured on.

    Returns:
        The number of nodes.

    Raises:
        UnsupportedModelError: if it would be slower than before.
        VerificationError: if the ONNX checker refuses the outcome.
    """
    with scratch_beside(path) as folder, silent_logs():
        plain = Path(folder) / path.name
        for each in (path, *companions_of("onnx", path)):
            if each.exists():
                each.rename(plain.with_name(each.name))
        if settings.quantize == "float16":
            _halve(plain, path)
        elif settings.quantize == "int8_dynamic":
            _refuse_convolutions(plain, model.name)
            _quantize_weights(plain, path)
        else:
            _quantize_all(plain, path, batches)
    check_file(path, f"The quantized form of model {model.name!r}")
    return len(onnx.load(path, load_external_data=False).graph.node)


def _halve(plain: Path, path: Path) -> None:
    """Weights and activations in float16; inputs and outputs stay as they are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    halved = OnnxModel(convert_float_to_float16(onnx.load(plain), keep_io_types=True))
    halved.topological_sort()
    halved.save_model_to_file(str(path), **_external(plain))


def _quantize_weights(plain: Path, path: Path) -> None:
    """Weights in int8; each product scales its activations anew."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    products = ["MatMul", "Gemm", "LSTM", "Attention"]
    quantize_dynamic(plain, path, op_types_to_quantize=products, weight_type=QuantType.QInt8, **_external(plain))


def _quantize_all(plain: Path, path: Path, batches: Sequence[Arrays]) -> None:
    """Activations in uint8 with ranges that were measured, weights in int8 with a scale for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # it ships no types
        def __init__(self) -> None:
            self._rest = iter(batches)

        def get_next(self) -> Arrays | None:
            return next(self._rest, None)

    ready = plain.with_name(f"ready-{plain.name}")
    # What is fused before ranges are measured runs 1.7 times as fast. Of symbolic shapes it makes nothing here.
    quant_pre_process(plain, ready, skip_symbolic_shape=True, **_external(plain, "save_as_external_data"))
    nodes = onnx.load(ready, load_external_data=False).graph.node
    quantize_static(
        *(ready, path, Batches()),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[node.name for node in nodes if node.op_type == "Softmax"],  # small probabilities become 0
        **_external(plain),
    )


def _external(plain: Path, option: str = "use_external_data_format") -> dict[str, bool]:
    """Weights in a file beside the model's, where they are there already."""
    return {option: any(each.exists() for each in companions_of("onnx", plain))}


def _refuse_convolutions(path: Path, name: str) -> None:
    found = {node.name: node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    convolutions = [node for node, kind in found.items() if kind.startswith("Conv")]
    if convolutions:
        raise UnsupportedModelError(
            f"Model {name!r} has {len(convolutions)} convolutions (the first is {convolutions[0]!r}), which ONNX "
            "Runtime computes at half the speed with quantize='int8_dynamic'. Use quantize='int8', which makes them "
            "faster, with data= to measure the ranges of activations on."
        )
