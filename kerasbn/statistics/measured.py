"""Let batch normalization start from statistics that are measured.

What it computes at inference stays the same: gamma and beta follow (`kerasbn.catalog.normalization`). Inside of a
recurrent layer, where the bias of the cell comes next and there is no beta, the bias does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import Array
from kerasbn.catalog.normalization import map_of, weights_for
from kerasbn.catalog.norms import norms_in
from kerasbn.catalog.recurrent import bias_with, cells_behind
from kerasbn.errors import OptionError
from kerasbn.graph.read import read
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.processes import Processes, processes_holding
from kerasbn.statistics.data import batches
from kerasbn.statistics.moments import Meter, Moments, Norm, pooled, row_of, size_of_row
from kerasbn.statistics.running import running


def start_from_measured(model: keras.Model, layers: Iterable[keras.layers.Layer], data: Any, *, preserve: bool) -> None:
    """Give batch normalizations the statistics of their inputs, measured in one pass over a sample.

    Args:
        model: The model, Sequential or Functional.
        layers: Batch normalizations of the model, and layers that hold some, such as recurrent ones.
        data: A sample of inputs, see `kerasbn.statistics.data.batches`.
        preserve: Whether they go on to compute at inference what they compute now; so do all
            layers behind them, and one pass sees every layer's population. If not, each
            normalizes by the moments of the batch while it is measured, as in training.

    Raises:
        OptionError: if the data does not fit the model, a layer's input is not finite on it, or a layer cannot
            compute the same by other statistics.
    """
    norms = [norm for layer in layers for norm in norms_in(layer)]
    cells = cells_behind(_keras.sublayers(model))
    if preserve:
        for norm in norms:
            _check_compensable(norm, cells.get(norm))
    wanted = frozenset(norms)
    runner = Runner(read(model), lambda site: not wanted.isdisjoint(norms_in(site.operation)))
    meter = Meter()
    processes = processes_holding(model)

    def go() -> bool:
        any_batch = False
        for inputs in batches(model, data, "Measuring statistics", may_be_none=processes.count > 1):
            any_batch = True
            # Nothing is written: no moving average, no state of a recurrent layer.
            with (
                running(model),
                _keras.aside(model),
                _keras.observed(norms, meter),
                uncorrected(norms),
                _keras.told(norms, training=not preserve),
            ):
                runner.advance(runner.start(inputs), call_at_inference)
        return any_batch

    for norm, moments in measured_by_all(processes, norms, meter, go):
        if preserve:
            _compensate(norm, cells.get(norm), moments)
        set_statistics(norm, moments.mean, moments.variance)


@contextlib.contextmanager
def uncorrected(norms: Iterable[Norm]) -> Iterator[None]:
    """Inside, batch normalizations go by the batch alone in training, with `renorm` too."""
    corrected = [norm for norm in norms if norm.renorm]
    try:
        for norm in corrected:
            norm.renorm = False
        yield
    finally:
        for norm in corrected:
            norm.renorm = True


def measured_by_all(
    processes: Processes, norms: Sequence[Norm], meter: Meter, go: Callable[[], bool]
) -> list[tuple[Norm, Moments]]:
    """What batch normalizations get in the batches of all processes: the moments of each that got any value.

    Args:
        processes: The processes.
        norms: The batch normalizations, the same on all.
        meter: What is told of their calls.
        go: Goes through the batches of this process; whether there were any.

    Raises:
        OptionError: if there is no batch on any process, or a value is not finite.
        ProcessError: if another process fails or is gone.
    """

    def found() -> Array:
        any_batch = go()
        return np.append(row_of(dict(meter.read()), norms), float(any_batch))

    rows, any_batch = np.split(processes.share(found, size_of_row(norms) + 1), [-1], axis=1)
    if not any_batch.any():
        raise OptionError("Option data holds no batch on any of the processes. Give one of them a sample at least.")
    measured = [*pooled(rows, norms)]
    for norm, moments in measured:
        check_finite(norm, moments)
    return measured


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


def statistics_in(norm: keras.layers.BatchNormalization) -> dict[str, keras.Variable]:
    """The weights of a batch normalization that hold what it knows of a population, by their names; none if not built.

    With `renorm` its training goes by three more, of which one makes the moving variance anew at each step. With
    `accumulate` moments wait for their update.
    """
    weights = {name: getattr(norm, name, None) for name in _population(0.0, 0.0, norm.epsilon)}
    return {name: weight for name, weight in weights.items() if weight is not None}


def set_statistics(norm: keras.layers.BatchNormalization, mean: Array, variance: Array) -> None:
    """Give a batch normalization the mean and variance of a population."""
    values = _population(mean, variance, norm.epsilon)
    for name, weight in statistics_in(norm).items():
        _keras.set_value(weight, values[name])


def _population(mean: Any, variance: Any, epsilon: float) -> dict[str, Any]:
    """What those weights are for a mean and variance, as the layer itself keeps them.

    No moments wait: those of before, or of other weights, would take the place of what was measured.
    """
    stddev = (variance + epsilon) ** 0.5
    return {
        "moving_mean": mean,
        "moving_variance": variance,
        "moving_stddev": stddev,
        "renorm_mean": mean,
        "renorm_stddev": stddev,
        **dict.fromkeys((f"accumulated_{each}" for each in ("mean", "variance", "count", "batches")), 0.0),
    }


def _check_compensable(norm: keras.layers.BatchNormalization, cell: Any) -> None:
    """Refuse a batch normalization that cannot compute the same by other statistics."""
    if not norm.scale or not (norm.center or (cell is not None and cell.use_bias)):
        raise OptionError(
            f"Layer {norm.name!r} has scale=False, or center=False and no bias behind it, so it cannot start from "
            "measured statistics and compute what the source does; give the norm both, or pass preserve=False."
        )


def _compensate(norm: keras.layers.BatchNormalization, cell: Any, moments: Moments) -> None:
    """Have a layer compute with other statistics what it does; what takes the shift is the cell's bias without beta."""
    gamma, shift = weights_for(map_of(norm), moments.mean, moments.variance, norm.epsilon)
    _keras.set_value(norm.gamma, gamma)
    if norm.center:
        _keras.set_value(norm.beta, shift)
    else:
        _keras.set_value(cell.bias, bias_with(cell, shift))
