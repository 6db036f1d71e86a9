"""What data tells of the batch normalization of a model.

The thresholds stand between what sound networks show and what planted faults do (docs/support/diagnose_nets.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerasbn.arrays import Array, array_of
from kerasbn.catalog.norms import is_frozen
from kerasbn.diagnosis.kinds import Finding, Kind
from kerasbn.diagnosis.subject import Subject
from kerasbn.diagnosis.training import fixed, steps_taken
from kerasbn.diagnosis.watching import Evidence
from kerasbn.statistics.moments import Moments

SIGMAS = 0.3
"""How many standard deviations of the data a moving mean may be off, root mean square over the channels."""
RATIO = 2.0
"""By which factor a moving variance may be off, geometric, root mean square over the channels."""
DISTANCE = 0.5
"""How far outputs may be apart between training and inference, by how much they differ between examples."""
EXAMPLES = 8
"""How few examples are too few; with 8 ResNet-50 loses 1.2 % of accuracy, with 4 3.7 % (Wu and He, 2018)."""
DEAD = 0.25
"""Which share of the channels may tell nothing: some always do, behind ReLU."""
HUGE = 1e4
"""How great a value may be, root mean square over a channel; float16 ends at 6.5e4."""
SHIFT = 1.25
"""By which factor Dropout may raise the variance."""
RESIDUE = 0.05
"""How much of what moving statistics began with may be left: after 3 / (1 - momentum) steps."""


def of_data(subject: Subject, evidence: Evidence, *, batched: bool) -> Iterator[Finding]:
    """What is found on data.

    Args:
        subject: The model.
        evidence: What was seen.
        batched: Whether the data came in batches, so that their size means something.
    """
    for norm, path in subject.norms.items():
        if norm in evidence.told and not is_frozen(norm):
            yield fixed(path)
        yield from _exploded(norm, path, evidence)
        if norm not in evidence.in_training:
            continue
        moments = evidence.in_training[norm]
        if batched and not is_frozen(norm):
            yield from _too_few(subject, norm, path, evidence.fewest)
        if moments.finite and _is_finite(norm):
            yield from _dead(norm, path, moments)
            yield from _statistics(subject, norm, path, moments, evidence.examples)
            yield from _dropout(norm, path, evidence)
    for number, distance in enumerate(evidence.distance):
        if distance > DISTANCE:
            name = subject.model.name
            which = f"Output {number}" if len(evidence.distance) > 1 else "Its output"
            yield Finding(
                name,
                Kind.MODES,
                f"{which} is {distance:.2f} of its own spread away where layers normalize by the batch.",
                "kerasbn.calibrate(model, data)",
            )


def of_steps(subject: Subject) -> Iterator[Finding]:
    """What the steps taken tell without data: whether the moving statistics can be there yet."""
    for norm, path in subject.norms.items():
        if not is_frozen(norm) and (left := _residue(subject, norm)) > RESIDUE:
            yield _too_slow(subject, norm, path, f"{left:.0%} of what its moving statistics began with is left.")


def figures_of(evidence: Evidence) -> tuple[float, ...]:
    """What the thresholds are for, the greatest of all layers: sigmas, ratio, distance, dead, size, shift."""
    seen = [(norm, moments) for norm, moments in evidence.in_training.items() if not is_frozen(norm)]
    columns = (
        [_sigmas(*each) for each in seen],
        [_ratio(*each) for each in seen],
        evidence.distance,
        [float(_still(*each).mean()) for each in seen],
        [_size(moments) for _, moments in seen],
        [_shift(norm, evidence) for norm, _ in seen],
    )
    return tuple(max(column, default=0.0) for column in columns)


def _statistics(
    subject: Subject, norm: keras.layers.BatchNormalization, path: str, moments: Moments, examples: int
) -> Iterator[Finding]:
    sigmas, ratio = _sigmas(norm, moments), _ratio(norm, moments)
    noise = 3 / np.sqrt(examples)  # of a sample so small
    if sigmas <= SIGMAS + noise and ratio <= RATIO * (1 + noise):
        return
    detail = (
        f"Its moving mean is off by {sigmas:.2f} sigmas of the data, its moving variance by a factor of {ratio:.3g}."
    )
    if (left := _residue(subject, norm)) > RESIDUE and not is_frozen(norm):
        yield _too_slow(subject, norm, path, f"{left:.0%} of what they began with is left. {detail}")
    else:
        frozen = ", frozen=True" if is_frozen(norm) else ""
        yield Finding(path, Kind.STATISTICS, detail, f"kerasbn.calibrate(model, data{frozen})")


def _sigmas(norm: keras.layers.BatchNormalization, moments: Moments) -> float:
    """How many standard deviations of the data the moving mean is off, root mean square over the channels."""
    return _rms((array_of(norm.moving_mean) - moments.mean) / np.sqrt(moments.variance + norm.epsilon))


def _ratio(norm: keras.layers.BatchNormalization, moments: Moments) -> float:
    """How many times the moving variance is more or less than that of the data, geometric, likewise."""
    quotient = (array_of(norm.moving_variance) + norm.epsilon) / (moments.variance + norm.epsilon)
    return float(np.exp(_rms(np.log(quotient))))


def _too_slow(subject: Subject, norm: keras.layers.BatchNormalization, path: str, detail: str) -> Finding:
    return Finding(
        path,
        Kind.MOMENTUM,
        f"Momentum {norm.momentum:g}, {steps_taken(subject.optimizer)} steps: {detail}",
        "kerasbn.calibrate(model, data); to train anew, a lower momentum, or kerasbn's with zero_debias=True.",
    )


def _residue(subject: Subject, norm: keras.layers.BatchNormalization) -> float:
    """How much of what moving statistics began with is left by their momentum."""
    taken = steps_taken(subject.optimizer)
    if not taken or norm.momentum is None or getattr(norm, "zero_debias", False):
        return 0.0
    return float(norm.momentum**taken)


def _too_few(subject: Subject, norm: keras.layers.BatchNormalization, path: str, rows: int) -> Iterator[Finding]:
    ghost = getattr(norm, "virtual_batch_size", None)
    share = rows if getattr(norm, "synchronized", False) else rows // subject.replicas
    share = min(share, ghost or share)
    if share < EXAMPLES:
        whose = "ghost batch" if ghost and share == ghost else "replica" if subject.replicas > 1 else "batch"
        yield Finding(
            path,
            Kind.TOO_FEW,
            f"A {whose} has {share} examples.",
            f"Train in batches of {EXAMPLES} and more, or kerasbn.freeze(model, {path!r}, what='statistics').",
        )


def _dead(norm: keras.layers.BatchNormalization, path: str, moments: Moments) -> Iterator[Finding]:
    still = _still(norm, moments)
    if still.mean() > DEAD:
        yield Finding(
            path,
            Kind.DEAD,
            f"{still.sum()} of {still.size} channels are the same for all of the data.",
            "Train anew at a lower rate: kerasbn.find_learning_rate(model, data).",
        )


def _still(norm: keras.layers.BatchNormalization, moments: Moments) -> Any:
    """The channels that tell nothing."""
    still = ~_alive(moments)
    return still if norm.gamma is None else still | (np.abs(array_of(norm.gamma)) < 1e-6)


def _exploded(norm: keras.layers.BatchNormalization, path: str, evidence: Evidence) -> Iterator[Finding]:
    moments = evidence.in_training.get(norm)
    weights = [array_of(weight) for weight in (norm.gamma, norm.beta) if weight is not None]
    back = "Go back to an earlier checkpoint, and train on at a lower rate: kerasbn.find_learning_rate(model, data)."
    if not _finite(weights):
        yield Finding(path, Kind.EXPLODED, "Its gamma or beta is not finite.", back)
    elif moments is not None and not moments.finite:
        yield Finding(path, Kind.EXPLODED, "It gets values that are not finite.", back)
    elif not _is_finite(norm):
        frozen = ", frozen=True" if is_frozen(norm) else ""
        yield Finding(
            path, Kind.EXPLODED, "Its moving statistics are not finite.", f"kerasbn.calibrate(model, data{frozen})"
        )
    elif moments is not None and (size := _size(moments)) > HUGE:
        yield Finding(path, Kind.EXPLODED, f"It gets values of {size:.1e}, root mean square over a channel.", back)


def _dropout(norm: keras.layers.BatchNormalization, path: str, evidence: Evidence) -> Iterator[Finding]:
    if not is_frozen(norm) and (ratio := _shift(norm, evidence)) > SHIFT:
        yield Finding(
            path,
            Kind.DROPOUT,
            f"Its input has {ratio:.2g} times the variance with Dropout on.",
            "kerasbn.rewrite(model, position='none'), which takes such Dropout out, then kerasbn.calibrate.",
        )


def _shift(norm: keras.layers.BatchNormalization, evidence: Evidence) -> float:
    """How many times the variance is with Dropout what it is without, averaged over channels."""
    one, other = evidence.with_dropout.get(norm), evidence.in_training.get(norm)
    if one is None or other is None or not (alive := _alive(other)).any():
        return 1.0
    return float(np.mean(one.variance[alive] / other.variance[alive]))


def _size(moments: Moments) -> float:
    return float(np.sqrt(np.max(moments.mean**2 + moments.variance)))


def _alive(moments: Moments) -> Any:
    """The channels that differ between examples by more than rounding."""
    return moments.variance > 1e-10 * (1 + moments.mean**2)


def _is_finite(norm: keras.layers.BatchNormalization) -> bool:
    return _finite([array_of(norm.moving_mean), array_of(norm.moving_variance)])


def _finite(arrays: list[Array]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
