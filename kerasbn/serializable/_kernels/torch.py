"""Batch normalization with torch: its own kernel where there is no mask, and replicas by an all-reduce.

The replicas are the processes of the default group, if there is one. What `torch.distributed` adds up has a gradient
here, the total of those of all processes: each has the gradient of the sum of all losses with respect to its own share
of the batch. `DistributedDataParallel` averages the gradients of the weights over the processes, so that they are those
of the mean of all losses, which is the mean over the whole batch where the shares are equal.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from kerasbn.serializable._kernels import plain
from kerasbn.serializable._kernels.plain import Normalized


def normalize(
    x: Any,
    gamma: Any,
    beta: Any,
    epsilon: float,
    axis: int,
    mask: Any = None,
    group_size: int | None = None,
    synchronized: bool | str = False,
) -> Normalized:
    """Normalize each channel of each group of examples."""
    engine = _engine() if synchronized else plain.ALONE
    if mask is None and group_size is None and engine is plain.ALONE and math.prod(x.shape) > x.shape[axis]:
        return _native(x, gamma, beta, epsilon, axis)
    return plain.normalize(x, gamma, beta, epsilon, axis, mask, group_size, engine)


def _native(x: Any, gamma: Any, beta: Any, epsilon: float, axis: int) -> Normalized:
    """Torch's kernel, on matrices where the channels are last: it takes these faster than images in any layout.

    The moving statistics that it would update are ours to read the moments of the batch from. The count is a number,
    which costs no operation.
    """
    shape = tuple(x.shape)
    before, channels, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    form = (before, channels) if axis == len(shape) - 1 else (before, channels, after)
    values = x.reshape(form) if x.element_size() < gamma.element_size() else x.reshape(form).to(gamma.dtype)
    mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
    outputs = torch.nn.functional.batch_norm(
        values, mean, variance, gamma, beta, training=True, momentum=1.0, eps=epsilon
    ).to(x.dtype)
    count = before * after
    biased = variance * ((count - 1) / count)
    return Normalized(outputs.reshape(shape), mean.reshape(1, -1), biased.reshape(1, -1), count)


def infer(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float, axis: int) -> Any:
    """Normalize with the statistics given."""
    form = (-1, *(1 for _ in x.shape[axis + 1 :]))
    mean, scale, beta = (each.reshape(form) for each in (mean, (variance + epsilon).rsqrt() * gamma, beta))
    return (x.to(gamma.dtype) - mean).mul_(scale).add_(beta).to(x.dtype)


def all_finite(mean: Any, variance: Any) -> Any:
    """Whether statistics are finite throughout."""
    return torch.isfinite(mean + variance).all()


def moved(moving: Any, batch: Any, rate: Any, seen: Any) -> Any:
    """What a moving statistic becomes."""
    moving = moving.value.to(batch.dtype)
    return torch.where(seen, moving * (1.0 - rate) + batch * rate, moving)


def _engine() -> plain.Engine:
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return plain.ALONE
    return plain.replicated(_AllReduce.apply) if torch.distributed.get_world_size() > 1 else plain.ALONE


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, vector: Any) -> Any:
        total = vector.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Any) -> Any:
        return _AllReduce.apply(gradient)
