"""What a model of Keras 2 was compiled with, and where the optimizer of a `.h5` file of Keras 3 stood."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import ModelFileError
from kerasbn.loading.causes import NOT_COMPILED, cause, line, missing
from kerasbn.loading.configs import class_of, plain
from kerasbn.loading.contents import Weight
from kerasbn.loading.weights import check_shape, set_weight

_OF_OPTIMIZERS = ("jit_compile", "is_legacy_optimizer", "decay")


def compiled(
    model: keras.Model,
    training: Mapping[str, Any],
    weights: Sequence[Weight],
    custom_objects: Mapping[str, Any],
) -> Iterator[str]:
    """Compile a model as the file says, and put its optimizer where it stood.

    Yields:
        What could not be, and why.
    """
    training = plain(dict(training))
    try:
        with keras.saving.CustomObjectScope(dict(custom_objects)):
            _compile(model, training)
    except Exception as error:
        yield f"{NOT_COMPILED}: {line(cause(error))}."
        return
    optimizer = model.optimizer
    if optimizer is None:
        return
    if not weights:
        yield "The optimizer starts afresh: its state is not in the file."
        return
    optimizer.build(model.trainable_variables)
    try:
        _fill(optimizer, weights)
    except ModelFileError as error:
        yield f"The optimizer starts afresh: {error}."


def resumed(
    model: keras.Model, kept: Callable[[], Sequence[Weight]], custom_objects: Mapping[str, Any]
) -> Iterator[str]:
    """Put the optimizer of a model of Keras 3 where it stood, which Keras has built for no weight of the model.

    Args:
        model: The model.
        kept: Reads what the optimizer keeps.
        custom_objects: What the file may name.

    Yields:
        What could not be, and why.
    """
    given = getattr(model, "optimizer", None)
    if given is None or not given.built or not model.trainable_variables:
        return
    with keras.saving.CustomObjectScope(dict(custom_objects)):
        model.optimizer = optimizer = type(given).from_config(given.get_config())
    try:
        weights = kept()
        if len(weights) > len(optimizer.variables):  # else it had not begun
            optimizer.build(model.trainable_variables)
        own = optimizer.variables
        if len(weights) != len(own):
            raise ModelFileError(f"it has {len(own)} variables, and there are {len(weights)} in the file")
        for variable, weight in zip(own, weights, strict=True):
            check_shape(variable, weight.value, "the optimizer")
    except Exception as error:
        yield f"The optimizer starts afresh: {line(cause(error))}."
        return
    for variable, weight in zip(own, weights, strict=True):
        set_weight(variable, weight.value, "the optimizer")


def _compile(model: keras.Model, training: Mapping[str, Any]) -> None:
    optimizer = training.get("optimizer_config") or training.get("optimizer")
    model.compile(
        optimizer=_optimizer(optimizer) if isinstance(optimizer, dict) else optimizer,
        loss=_each(_loss, training.get("loss")),
        metrics=_each(_metric, training.get("metrics")),
        weighted_metrics=_each(_metric, training.get("weighted_metrics")),
        loss_weights=training.get("loss_weights"),
    )


def _optimizer(entry: Mapping[str, Any]) -> Any:
    kind, config = class_of(entry), dict(entry["config"])
    inner = config.pop("inner_optimizer", None)
    if inner is not None:
        dynamic = {key: config[key] for key in ("initial_scale", "dynamic_growth_steps") if config.get(key)}
        return keras.optimizers.LossScaleOptimizer(_optimizer(inner), **dynamic)
    rate = config.get("learning_rate")
    if isinstance(rate, dict):
        schedule = {key: value for key, value in rate["config"].items() if key != "name" or value is not None}
        config["learning_rate"] = keras.optimizers.schedules.deserialize({**rate, "config": schedule})
    if decay := config.get("decay"):
        config["learning_rate"] = keras.optimizers.schedules.InverseTimeDecay(rate, 1, decay)
    if kind in ("RMSprop", "SGD", "Adam") and config.get("momentum", 0) is None:
        del config["momentum"]
    config = {key: value for key, value in config.items() if key not in _OF_OPTIMIZERS}
    return _made(keras.optimizers.deserialize, kind, config)


def _each(read: Callable[[Any], Any], value: Any) -> Any:
    """What stands in a structure of lists and dicts."""
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _each(read, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_each(read, each) for each in value]
    return None if value is None else read(value)


def _loss(value: Any) -> Any:
    if isinstance(value, str):
        keras.losses.get(value)
        return value
    if value["class_name"] == "function":
        return keras.losses.get(value["config"])
    config = {key: each for key, each in value["config"].items() if key not in ("fn", "axis")}
    if config.get("reduction") == "auto":
        config["reduction"] = "sum_over_batch_size"
    return _made(keras.losses.deserialize, class_of(value), config)


_SHORT_NAMES = ("accuracy", "acc", "crossentropy", "ce", "mse", "mae", "mape", "msle")
"""What metrics may be called in `compile`; their files name the function too, which for some the outputs decide on."""


def _metric(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if value["class_name"] == "function":
        return keras.metrics.get(value["config"])
    config = dict(value["config"])
    if value["class_name"] == "MeanMetricWrapper":
        name = config["fn"] if isinstance(config["fn"], str) else config["fn"]["config"]
        return config["name"] if config["name"] in _SHORT_NAMES or config["name"] == name else name
    return _made(keras.metrics.deserialize, class_of(value), config)


def _made(deserialize: Callable[[dict[str, Any]], Any], kind: str, config: Mapping[str, Any]) -> Any:
    """What a class makes of a config; for one that it does not know Keras gives its name back."""
    made = deserialize({"class_name": kind, "config": config})
    if isinstance(made, str):
        raise ModelFileError(f"it needs {missing(kind)}")
    return made


_SLOTS: Mapping[str, tuple[str, ...]] = {
    "m": ("momentum",),
    "v": ("velocity", "norm"),
    "vhat": ("velocity_hat",),
    "rms": ("velocity",),
    "momentum": ("momentum",),
    "mg": ("average_gradient",),
    "accum_grad": ("accumulated_grad",),
    "accum_var": ("accumulated_delta_var",),
}
"""What the optimizers before Keras 2.11 keep of each weight, and what it is called in Keras 3."""


def _fill(optimizer: keras.optimizers.Optimizer, weights: Sequence[Weight]) -> None:
    """Give an optimizer its variables, all of them or none.

    Raises:
        ModelFileError: if they are not those of the file.
    """
    iterations = _keras.step_counter(optimizer)
    own = [
        each
        for each in optimizer.variables
        if each is not iterations and each.path.rpartition("/")[2] != "learning_rate"
    ]
    first, *rest = weights
    rest = [
        each for each in rest if _last(each.name) not in ("learning_rate", "current_learning_rate") or each.value.shape
    ]
    if len(rest) != len(own):
        raise ModelFileError(f"it has {len(own)} variables, and there are {len(rest)} in the file")
    if all(_last(each.name) in _SLOTS for each in rest):
        rest = list(_as_variables_are(own, rest))
    pairs = [(iterations, first), *zip(own, rest, strict=True)]
    for variable, weight in pairs:
        check_shape(variable, weight.value, "the optimizer")
    for variable, weight in pairs:
        set_weight(variable, weight.value, "the optimizer")


def _last(name: str) -> str:
    return name.partition(":")[0].rpartition("/")[2]


def _as_variables_are(own: Sequence[keras.Variable], weights: Sequence[Weight]) -> Iterator[Weight]:
    """What optimizers before Keras 2.11 have, in the order of those of Keras 3: there all of one kind come together."""
    of_kind = {kind: iter([each for each in weights if _last(each.name) == kind]) for kind in _SLOTS}
    for variable in own:
        kinds = [kind for kind, names in _SLOTS.items() if any(variable.path.endswith(f"_{name}") for name in names)]
        weight = next(itertools.chain(*(of_kind[kind] for kind in kinds)), None)
        if weight is None:
            raise ModelFileError(f"its variable {variable.path!r} is not in the file")
        yield weight
