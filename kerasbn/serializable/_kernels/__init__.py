"""Batch normalization of one batch, as fast as the backend allows.

`plain` states the algebra and runs on every backend; `tensorflow` and `torch` put the kernels and operations of theirs
in its place where these apply, `jax` its gradient in the place of a derived one; `arrangement` brings inputs of any
rank, masks and ghost batches into the one form that `plain` works on.
"""

from __future__ import annotations

from typing import Any

import keras

from kerasbn.serializable._kernels.plain import Normalized as Normalized
from kerasbn.serializable._kernels.plain import dtype_of_statistics as dtype_of_statistics


def normalize(
    x: Any,
    gamma: Any,
    beta: Any,
    *,
    epsilon: float,
    axis: int,
    mask: Any = None,
    group_size: int | None = None,
    synchronized: bool | str = False,
) -> Normalized:
    """Normalize each channel of each group of examples with its own mean and variance.

    Args:
        x: Floats of any rank.
        gamma: The scale, of shape `(channels,)`, in the dtype of the statistics.
        beta: The offset, likewise.
        epsilon: What is added to the variance.
        axis: The axis of the channels, from 0.
        mask: Which positions count: over the leading axes of x, or over all axes but the channels';
            sizes of 1 stand for all. `None`: everything.
        group_size: How many examples make up a group. `None`: all of them.
        synchronized: Whether the statistics are those of all replicas, or under JAX the axis that these are along.
    """
    arguments = (x, gamma, beta, epsilon, axis, mask, group_size)
    if keras.backend.backend() == "tensorflow":
        from kerasbn.serializable._kernels import tensorflow

        return tensorflow.normalize(*arguments, synchronized)
    if keras.backend.backend() == "jax":
        from kerasbn.serializable._kernels import jax

        return jax.normalize(*arguments, synchronized)
    if keras.backend.backend() == "torch":
        from kerasbn.serializable._kernels import torch

        return torch.normalize(*arguments, synchronized)
    from kerasbn.serializable._kernels import plain

    return plain.normalize(*arguments)


def infer(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, *, epsilon: float, axis: int) -> Any:
    """Normalize each channel with the statistics given, all of shape `(channels,)`."""
    if keras.backend.backend() == "tensorflow":
        from kerasbn.serializable._kernels import tensorflow

        if tensorflow.can_infer(x, axis):
            return tensorflow.infer(x, mean, variance, gamma, beta, epsilon)
    return _small_operations().infer(x, mean, variance, gamma, beta, epsilon, axis)


def all_finite(mean: Any, variance: Any) -> Any:
    """Whether statistics are finite throughout."""
    return _small_operations().all_finite(mean, variance)


def moved(moving: keras.Variable, batch: Any, rate: Any, seen: Any) -> Any:
    """What a moving statistic becomes.

    Args:
        moving: The moving statistic.
        batch: That of the batch.
        rate: The share at which it comes in: a number, or one for each channel.
        seen: Whether it does: a boolean, or one for each channel.
    """
    return _small_operations().moved(moving, batch, rate, seen)


def _small_operations() -> Any:
    """Where the small operations are: torch runs them one by one, and each takes longer to get to by way of Keras."""
    if keras.backend.backend() == "torch":
        from kerasbn.serializable._kernels import torch

        return torch
    from kerasbn.serializable._kernels import plain

    return plain
