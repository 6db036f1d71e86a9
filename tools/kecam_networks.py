"""Detectors, hybrids and normalized networks of keras_cv_attention_models, on Keras 3.

    pip install --no-deps keras-cv-attention-models==1.4.3 ftfy wcwidth tqdm regex pillow

The package does not know Keras 3. Its networks run on it, with the functions of its keras_core backend,
which are Keras's by an earlier name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KECAM_BACKEND"] = "tensorflow"
os.environ["TF_USE_LEGACY_KERAS"] = "0"

import keras


def _functions_for_keras_3() -> None:
    """Put the package's functions for keras_core in the place of those for TensorFlow."""
    package = importlib.util.find_spec("keras_cv_attention_models")
    assert package is not None
    assert package.origin is not None
    sys.modules["keras_core"], sys.modules["keras_core.ops"] = keras, keras.ops
    spec = importlib.util.spec_from_file_location(
        "keras_cv_attention_models.tf_functional", Path(package.origin).parent / "keras_core_functional.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


_functions_for_keras_3()

import keras_cv_attention_models as kecam  # noqa: E402
from keras_cv_attention_models.beit import beit  # noqa: E402
from keras_cv_attention_models.levit import levit  # noqa: E402


def _same_shape(layer: Any, inputs: Any) -> keras.KerasTensor:
    return keras.KerasTensor(inputs.shape, inputs.dtype)


# Keras takes `x * 0.5` for sparse, which these cannot be called on.
levit.MultiHeadPositionalEmbedding.compute_output_spec = _same_shape
beit.MultiHeadRelativePositionalEmbedding.compute_output_spec = _same_shape


def _of(make: Callable[..., keras.Model], size: int | None = 96) -> Callable[[], keras.Model]:
    shape = {} if size is None else {"input_shape": (size, size, 3)}
    return lambda: make(pretrained=None, **shape)


DETECTORS: dict[str, Callable[[], keras.Model]] = {
    "YOLOv8 n": _of(kecam.yolov8.YOLOV8_N, 128),
    "YOLOX tiny": _of(kecam.yolox.YOLOXTiny, 128),
    "YOLOR CSP": _of(kecam.yolor.YOLOR_CSP, 128),
}
HYBRIDS: dict[str, Callable[[], keras.Model]] = {
    "GhostNetV2": _of(kecam.ghostnet.GhostNetV2_100),
    "EfficientViT B0": _of(kecam.efficientvit.EfficientViT_B0),
    "CoAtNet0": _of(kecam.coatnet.CoAtNet0),
    "ResNeSt50": _of(kecam.resnest.ResNest50),
    "MobileViT XXS": _of(kecam.mobilevit.MobileViT_XXS),
    "LeViT128S": _of(kecam.levit.LeViT128S, None),
    "AotNet50": lambda: kecam.aotnet.AotNet50(input_shape=(96, 96, 3)),
    "ResNeXt50": _of(kecam.resnet_family.ResNeXt50),
    "RegNetY040": _of(kecam.resnet_family.RegNetY040),
    "LCNet100": _of(kecam.lcnet.LCNet100),
    "BotNet50": _of(kecam.botnet.BotNet50, 224),
    "HaloNet50T": _of(kecam.halonet.HaloNet50T, 256),
    "CotNet50": _of(kecam.cotnet.CotNet50),
    "FasterNetT0": _of(kecam.fasternet.FasterNetT0),
}
NORMALIZED: dict[str, Callable[[], keras.Model]] = {
    "MogaNet": _of(kecam.moganet.MogaNetXtiny, 64),
    "HorNet": _of(kecam.hornet.HorNetTiny, 64),
    "IFormer": _of(kecam.iformer.IFormerSmall, 224),
    "WaveMLP": _of(kecam.wave_mlp.WaveMLP_T, 64),
    "InceptionNeXt": _of(kecam.inceptionnext.InceptionNeXtTiny, 64),
    "FasterNet": _of(kecam.fasternet.FasterNetT0, 64),
}
