"""Let batch normalization start from statistics that are measured.

What BN computes at inference, s x + t with s = gamma / sqrt(var + epsilon) and t = beta - mean s,
stays the same under other statistics with

    gamma' = s sqrt(var' + epsilon),   beta' = t + mean' s
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.errors import OptionError
from kerasbn.graph.model import CallSite
from kerasbn.graph.read import read
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.training.data import batches
from kerasbn.training.moments import Moments, array_of, moments_of


def start_from_measured(
    model: keras.Model, norms: Collection[keras.layers.BatchNormalization], data: Any, *, preserve: bool
) -> None:
    """Give batch normalizations the statistics of their inputs, measured in one pass over a sample.

    Args:
        model: The model, Sequential or Functional.
        norms: Batch normalizations of the model.
        data: A sample of inputs, see `kerasbn.training.data.batches`.
        preserve: Whether they go on to compute at inference what they compute now; so do all
            layers behind them, and one pass sees every layer's population. If not, each
            normalizes by the moments of the batch while it is measured, as in training.

    Raises:
        OptionError: if the data does not fit the model, or a layer's input is not finite on it.
    """
    graph = read(model)
    sites = [site for site in graph.walk() if site.operation in norms]
    runner = Runner(graph, [site.address for site in sites])
    measured: dict[keras.layers.BatchNormalization, Moments] = {}

    def call(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        norm: Any = site.operation
        if norm not in norms:
            return call_at_inference(site, args, kwargs)
        moments = moments_of(args[0], norm.axis, kwargs.get("mask", _keras.mask_of(args[0])))
        measured[norm] = measured[norm] + moments if norm in measured else moments
        return call_at_inference(site, args, kwargs) if preserve else norm(*args, **{**kwargs, "training": True})

    for inputs in batches(model, data, "Measuring statistics"):
        with keras.StatelessScope():  # nothing is written: no moving average, no state of a recurrent layer
            runner.run(inputs, call)
    for site in sites:
        norm = site.operation
        if not np.all(np.isfinite(measured[norm].squares)):
            raise OptionError(
                f"On the sample in option data, what {site.address} normalizes is not finite. Take the inputs that are "
                "NaN or infinite out of it, or leave the option out."
            )
    for norm, moments in measured.items():
        _start(norm, moments, preserve)


def _start(norm: keras.layers.BatchNormalization, moments: Moments, preserve: bool) -> None:
    if preserve:
        scale = array_of(norm.gamma) / np.sqrt(array_of(norm.moving_variance) + norm.epsilon)
        shift = array_of(norm.beta) - array_of(norm.moving_mean) * scale
        norm.gamma.assign(scale * np.sqrt(moments.variance + norm.epsilon))
        norm.beta.assign(shift + moments.mean * scale)
    norm.moving_mean.assign(moments.mean)
    norm.moving_variance.assign(moments.variance)
