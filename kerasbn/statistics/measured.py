"""Let batch normalization start from statistics that are measured.

What it computes at inference stays the same: gamma and beta follow (`kerasbn.catalog.normalization`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.catalog.normalization import map_of, weights_for
from kerasbn.errors import OptionError
from kerasbn.graph.model import CallSite
from kerasbn.graph.read import read
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.statistics.data import batches
from kerasbn.statistics.moments import Meter, Moments
from kerasbn.statistics.running import running


def start_from_measured(
    model: keras.Model, norms: Collection[keras.layers.BatchNormalization], data: Any, *, preserve: bool
) -> None:
    """Give batch normalizations the statistics of their inputs, measured in one pass over a sample.

    Args:
        model: The model, Sequential or Functional.
        norms: Batch normalizations of the model.
        data: A sample of inputs, see `kerasbn.statistics.data.batches`.
        preserve: Whether they go on to compute at inference what they compute now; so do all
            layers behind them, and one pass sees every layer's population. If not, each
            normalizes by the moments of the batch while it is measured, as in training.

    Raises:
        OptionError: if the data does not fit the model, or a layer's input is not finite on it.
    """
    runner = Runner(read(model), lambda site: site.operation in norms)
    meter = Meter()

    def call(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        norm: Any = site.operation
        if norm in norms and not preserve:
            return norm(*args, **{**kwargs, "training": True})
        return call_at_inference(site, args, kwargs)

    for inputs in batches(model, data, "Measuring statistics"):
        # Nothing is written: no moving average, no state of a recurrent layer.
        with running(model), keras.StatelessScope(), _keras.observed(norms, meter):
            runner.advance(runner.start(inputs), call)
    measured = list(meter.read())
    for norm, moments in measured:
        check_finite(norm, moments)
    for norm, moments in measured:
        if preserve:
            _compensate(norm, moments)
        set_statistics(norm, moments)


def check_finite(norm: keras.layers.BatchNormalization, moments: Moments) -> None:
    """Refuse moments that would make a layer useless.

    Raises:
        OptionError: if any of its inputs was NaN or infinite.
    """
    if not moments.finite:
        raise OptionError(
            f"On the data given, what layer {norm.name!r} normalizes is not finite. Take the inputs that are NaN or "
            "infinite out of it, or look for the layer ahead of it that overflows."
        )


def set_statistics(norm: keras.layers.BatchNormalization, moments: Moments) -> None:
    """Give a batch normalization the mean and variance of a population."""
    _keras.set_value(norm.moving_mean, moments.mean)
    _keras.set_value(norm.moving_variance, moments.variance)


def _compensate(norm: keras.layers.BatchNormalization, moments: Moments) -> None:
    gamma, beta = weights_for(map_of(norm), moments.mean, moments.variance, norm.epsilon)
    _keras.set_value(norm.gamma, gamma)
    _keras.set_value(norm.beta, beta)
