"""How far Dropout moves the variance that batch normalization sees from training to inference.

For Dropout of rate p on a value with mean m and variance v (Li et al., 2018, section 3):

    variance in training   (v + m^2) / (1 - p) - m^2,     at inference   v
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.catalog.roles import Role, role_of
from kerasbn.graph.model import CallSite
from kerasbn.graph.read import read_to_run
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.statistics.data import batches, check_steps
from kerasbn.statistics.moments import Moments, moments_of
from kerasbn.statistics.running import running


def variance_shift(model: keras.Model, data: Any, steps: int | None = None) -> dict[str, float]:
    """Measure how much more variance each batch normalization gets in training than at inference.

    The moving variance is an average over training. Where Dropout ahead of a layer made the
    variance greater there, the layer divides by too much at inference. A ratio far from 1 says to
    take that Dropout out, as `kerasbn.rewrite` does, and to `kerasbn.calibrate` afterwards.

    Args:
        model: A Sequential or Functional model, whatever way it trains in. It is not changed.
        data: A sample of inputs, as for `kerasbn.calibrate`.
        steps: How many batches to take. Defaults to `None`: all. Data that never ends needs it.

    Returns:
        For each call of a `BatchNormalization`, by its address (`"block/bn#0"`), the variance of
        its input with Dropout and noise on, over that with them off, averaged over channels.

    Raises:
        OptionError: if the data does not fit the model, holds no batch or never ends.
        UnsupportedModelError: if the model is not Sequential or Functional.

    Reference:

    - [Li et al., 2018](https://arxiv.org/abs/1801.05134).
    """
    check_steps(steps)
    runner = Runner(read_to_run(model), _is_norm)
    inferred: dict[str, Moments] = {}
    trained: dict[str, Moments] = {}
    with keras.StatelessScope():  # random numbers go on from batch to batch, and are forgotten in the end
        for inputs in batches(model, data, "Measuring the variance shift", steps):
            with running(model):
                runner.advance(runner.start(inputs), _Watch(inferred, noisy=False))
                runner.advance(runner.start(inputs), _Watch(trained, noisy=True))
    return {address: _ratio(trained[address], inferred[address]) for address in inferred}


class _Watch:
    """Calls layers as at inference, but for Dropout if asked, and keeps what normalizations get."""

    def __init__(self, moments: dict[str, Moments], *, noisy: bool) -> None:
        self._moments = moments
        self._noisy = noisy

    def __call__(self, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation: Any = site.operation
        if _is_norm(site):
            mask = kwargs.get("mask")
            new = moments_of(args[0], operation.axis, _keras.mask_of(args[0]) if mask is None else mask)
            old = self._moments.get(site.address)
            self._moments[site.address] = new if old is None else old + new
        if self._noisy and role_of(operation) is Role.DROPOUT:
            return operation(*args, **{**kwargs, "training": True})
        return call_at_inference(site, args, kwargs)


def _is_norm(site: CallSite) -> bool:
    return isinstance(site.operation, keras.layers.BatchNormalization)


def _ratio(one: Moments, other: Moments) -> float:
    alive = other.variance > 0
    return float(np.mean(one.variance[alive] / other.variance[alive])) if alive.any() else 1.0
