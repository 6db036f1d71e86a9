"""How far Dropout moves the variance that batch normalization sees from training to inference.

For Dropout of rate p on a value with mean m and variance v (Li et al., 2018, section 3):

    variance in training   (v + m^2) / (1 - p) - m^2,     at inference   v
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.catalog.norms import norms_at, norms_in
from kerasbn.catalog.roles import drops
from kerasbn.graph.model import CallSite
from kerasbn.graph.read import read_to_run
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.statistics.data import batches, check_steps
from kerasbn.statistics.moments import Meter, Moments
from kerasbn.statistics.running import running


def variance_shift(model: keras.Model, data: Any, steps: int | None = None) -> dict[str, float]:
    """Measure how much more variance each batch normalization gets in training than at inference.

    The moving variance is an average over training. Where Dropout ahead of a layer made the
    variance greater there, the layer divides by too much at inference. A ratio far from 1 says to
    take that Dropout out, as `kerasbn.rewrite` does, and to `kerasbn.calibrate` afterwards.

    Example:

    ```python
    shift = kerasbn.variance_shift(model, x)
    worst = max(shift, key=shift.get)
    ```

    Args:
        model: A Sequential or Functional model, whatever way it trains in. It is not changed.
        data: A sample of inputs, as for `kerasbn.calibrate`.
        steps: How many batches to take. Defaults to `None`: all. Data that never ends needs it.

    Returns:
        For each call of a `BatchNormalization`, by its address (`"block/bn#0"`), the variance of
        its input with Dropout and noise on, over that with them off, averaged over channels. One
        inside of a layer is at its path there, `"both/forward_lstm/lstm_cell_bn#0"`.

    Raises:
        OptionError: if the data does not fit the model, holds no batch or never ends.
        UnsupportedModelError: if the model is not Sequential or Functional, or calls a batch normalization
            in a way that hides its values, such as `keras.ops.vectorized_map`.

    Reference:

    - [Li et al., 2018](https://arxiv.org/abs/1801.05134).
    """
    check_steps(steps)
    runner = Runner(read_to_run(model), lambda site: bool(norms_at(site)))
    layers = _keras.sublayers(model)
    inferred, trained = _Watch(), _Watch()
    with _keras.aside(model):  # random numbers go on from batch to batch, and are forgotten in the end
        for inputs in batches(model, data, "Measuring the variance shift", steps):
            with running(model):
                runner.advance(runner.start(inputs), inferred)
                with _keras.told(norms_in(model), training=False), _keras.told(filter(drops, layers), training=True):
                    runner.advance(runner.start(inputs), trained)
    in_training = dict(trained.read())
    return {
        address: _ratio(in_training[address], moments)
        for address, moments in inferred.read()
        if address in in_training  # a mask may leave nothing of what was dropped
    }


class _Watch:
    """Calls layers as at inference, and keeps the moments of what the batch normalizations get, by address."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = defaultdict(Meter)

    def __call__(self, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        meters = {norm.layer: self._meters[norm.address] for norm in norms_at(site)}

        def note(norm: keras.layers.BatchNormalization, *args: Any, **kwargs: Any) -> None:
            meters[norm](norm, *args, **kwargs)

        with _keras.observed(meters, note):
            return call_at_inference(site, args, kwargs)

    def read(self) -> Iterator[tuple[str, Moments]]:
        """The moments at each address."""
        return ((address, moments) for address, meter in self._meters.items() for _, moments in meter.read())


def _ratio(one: Moments, other: Moments) -> float:
    alive = other.variance > 0
    return float(np.mean(one.variance[alive] / other.variance[alive])) if alive.any() else 1.0
