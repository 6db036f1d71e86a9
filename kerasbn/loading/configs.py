"""Configs of Keras 2 in the words of Keras 3."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kerasbn.errors import ModelFileError
from kerasbn.serializable import keras2_hard_sigmoid


class _Any:
    """Every value."""


_ANY: Final = _Any()

_RNN = {"time_major": False, "implementation": _ANY, "ragged": _ANY}
_RENORM = {"fused": _ANY, "renorm": False, "renorm_clipping": None, "renorm_momentum": _ANY, "adjustment": None}
_KERNEL = {"kernel_initializer": _ANY, "kernel_regularizer": None, "kernel_constraint": None}
_LOOKUP = {"has_input_vocabulary": _ANY, "vocabulary_size": _ANY, "max_values": _ANY}

WITHOUT_EFFECT: Mapping[str, Mapping[str, Any]] = {
    "": {
        "batch_input_shape": _ANY,
        "input_shape": _ANY,
        "batch_size": _ANY,
        "input_dtype": _ANY,
        "autocast": _ANY,
        "experimental_autocast": _ANY,
        "dynamic": False,
        "ragged": False,
        "optional": False,
        "rng_type": _ANY,
    },
    **dict.fromkeys(("RNN", "SimpleRNN", "GRU", "LSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _RNN),
    **{key: {"implementation": _ANY} for key in ("SimpleRNNCell", "GRUCell", "LSTMCell")},
    "StackedRNNCells": {"reverse_state_order": False},
    "BatchNormalization": {**_RENORM, "virtual_batch_size": None},
    **{key: {**_KERNEL, "groups": 1, "filters": _ANY} for key in ("DepthwiseConv1D", "DepthwiseConv2D")},
    **{key: {**_KERNEL, "groups": 1} for key in ("SeparableConv1D", "SeparableConv2D")},
    **{key: {"groups": 1} for key in ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")},
    **{key: {"noise_shape": None} for key in ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")},
    "Embedding": {"input_length": _ANY},
    "Attention": {"causal": False},
    "AdditiveAttention": {"causal": False},
    "MultiHeadAttention": {
        "softmax_robust_masking": False,
        "query_shape": _ANY,
        "key_shape": _ANY,
        "value_shape": _ANY,
    },
    "IntegerLookup": _LOOKUP,
    "StringLookup": _LOOKUP,
    "TextVectorization": _LOOKUP,
    "InputLayer": {"type_spec": None},
}
"""What Keras 3 does not know in the config of a class (`""`: of any), and the value at which it did nothing."""

RENAMED: Mapping[str, Mapping[str, str]] = {
    "InputLayer": {"batch_input_shape": "batch_shape", "input_dtype": "dtype"},
    "LeakyReLU": {"alpha": "negative_slope"},
}

CLASSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "SyncBatchNormalization": ("BatchNormalization", {"synchronized": True}),
    "BatchNormalizationV1": ("BatchNormalization", {}),
    "BatchNormalizationV2": ("BatchNormalization", {}),
    "GRUV2": ("GRU", {}),
    "LSTMV2": ("LSTM", {}),
    "Convolution1D": ("Conv1D", {}),
    "Convolution2D": ("Conv2D", {}),
    "Convolution3D": ("Conv3D", {}),
}
"""What a class is called in Keras 3, and what it is there by an argument."""

ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {"hard_sigmoid": keras2_hard_sigmoid}
"""Activations that are others in Keras 3."""

_ARGUMENTS_OF_ACTIVATIONS = ("activation", "recurrent_activation")


def plain(value: Any) -> Any:
    """A config without the wrappings that Keras 2 has for tuples, shapes and NumPy's numbers."""
    if isinstance(value, dict):
        if value.get("class_name") in ("__tuple__", "TensorShape") and "items" in value:
            return None if value["items"] is None else [plain(each) for each in value["items"]]
        if value.get("class_name") == "__numpy__":
            return value["config"]["value"]
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def spelled(name: str) -> str:
    """A layer's name as Keras 3 takes it: a slash stands between layers there."""
    return name.replace("/", "_")


def class_of(entry: Mapping[str, Any]) -> str:
    """The name of an entry's class, without Keras 2's `"Custom>"`."""
    return str(entry["class_name"]).removeprefix("Custom>")


def cleaned(kind: str, config: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """The class of a layer of Keras's own in Keras 3, and its arguments there.

    Raises:
        ModelFileError: if an argument is set that Keras 3 has not.
    """
    kind, arguments = CLASSES.get(kind, (kind, {}))
    found = dict(arguments)
    renamed, without_effect = RENAMED.get(kind, {}), {**WITHOUT_EFFECT[""], **WITHOUT_EFFECT.get(kind, {})}
    for key, value in config.items():
        name = renamed.get(key, key)
        if name in without_effect:
            if without_effect[name] is not _ANY and value != without_effect[name]:
                raise ModelFileError(
                    f"{where} ({kind}) has {key}={value!r}, which Keras 3 has not. Set it to {without_effect[name]!r} "
                    "in the Keras 2 that made the file, and save it again"
                )
        elif name not in arguments:
            found[name] = _translated(kind, name, value)
    return kind, found


def _translated(kind: str, name: str, value: Any) -> Any:
    if kind == "BatchNormalization" and name == "axis" and isinstance(value, list) and len(value) == 1:
        return value[0]
    if name in _ARGUMENTS_OF_ACTIVATIONS and isinstance(value, str):
        return ACTIVATIONS.get(value, value)
    return policy(value) if name == "dtype" else value


def policy(value: Any) -> Any:
    """The name of a type or policy, however it is written."""
    if isinstance(value, dict) and str(value.get("class_name")).startswith("Policy"):
        return value["config"]["name"]
    return value


def group_name(name: str) -> str:
    """As Keras 2 names what it saves: `"conv2d"`, `"batch_normalization"`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
