"""What the layers and the optimizer tell without the graph: precision, averages, decay, calls as in training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import array_of
from kerasbn.catalog.norms import is_frozen
from kerasbn.diagnosis.kinds import Finding, Kind
from kerasbn.diagnosis.subject import Subject


def of_training(subject: Subject) -> Iterator[Finding]:
    """What is found in the layers and the optimizer."""
    trained = {address.rpartition("#")[0] for address in subject.facts.trained} if subject.facts else set()
    for norm, path in subject.norms.items():
        if path in trained and not is_frozen(norm):
            yield fixed(path)
        yield from _precision(norm, path)
        yield from _decay(subject.optimizer, norm, path)
    yield from _averages(subject)


def fixed(path: str) -> Finding:
    """The finding for a batch normalization that is called as in training at inference."""
    return Finding(
        path,
        Kind.FIXED_TRAINING,
        "It is called with training=True.",
        f"kerasbn.freeze(model, {path!r}), or build the model without the argument.",
    )


def steps_taken(optimizer: Any) -> int:
    """How many steps an optimizer has taken."""
    return 0 if optimizer is None else int(array_of(_keras.step_counter(optimizer)))


def _precision(norm: keras.layers.BatchNormalization, path: str) -> Iterator[Finding]:
    dtype = keras.backend.standardize_dtype(norm.moving_variance.dtype)
    if dtype in ("float16", "bfloat16"):
        mixed = f"mixed_{dtype}"
        yield Finding(
            path,
            Kind.FLOAT16,
            f"Its moving statistics are in {dtype}.",
            f"Build it with dtype={mixed!r}, or the model under keras.config.set_dtype_policy({mixed!r}).",
        )


def _decay(optimizer: Any, norm: keras.layers.BatchNormalization, path: str) -> Iterator[Finding]:
    gamma = norm.gamma
    if gamma is None or not norm.trainable or not gamma.trainable:
        return
    if float(getattr(norm.gamma_regularizer, "l2", 0) or 0) > 0:
        yield Finding(
            path,
            Kind.DECAY,
            "Its gamma_regularizer is L2.",
            "Build it with gamma_regularizer=None, and train the model.",
        )
    elif optimizer is not None and _decays(optimizer, gamma):
        yield Finding(
            path,
            Kind.DECAY,
            f"{type(optimizer).__name__} decays its gamma.",
            'kerasbn.rewrite(model, position="none", dropout="none", decay_exclude=["normalization"])',
        )


def _decays(optimizer: Any, weight: keras.Variable) -> bool:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _decays(optimizer.inner_optimizer, weight)
    if _keras.is_multi_optimizer(optimizer) or not optimizer.weight_decay:
        return False
    excluded, pattern = _keras.excluded_from_weight_decay(optimizer, [weight])
    return not excluded and not (pattern and re.search(pattern, weight.name))


def _averages(subject: Subject) -> Iterator[Finding]:
    pairs = [] if subject.optimizer is None else _keras.averaged_weights(subject.optimizer)
    if not steps_taken(subject.optimizer):
        return
    apart = [weight for weight, average in pairs if not np.array_equal(array_of(weight), array_of(average))]
    if apart:
        yield Finding(
            subject.model.name,
            Kind.AVERAGES,
            f"{len(apart)} of {len(pairs)} weights are not the averages that the optimizer keeps of them.",
            "model.optimizer.finalize_variable_values(model.trainable_variables), then kerasbn.calibrate(model, data).",
        )
