"""Re-estimate the population statistics of batch normalization (Ioffe & Szegedy, 2015, Algorithm 2).

    E[x]   <- mean over the data,   Var[x] <- m/(m - 1) variance over the data

Layer after layer: the statistics of a layer are measured while all those ahead of it use theirs. So
each one has its stage. All batches go through the network stage by stage, and wait between two
stages at the layers to be measured next; where they do not fit into memory, they start anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.catalog.norms import norms_in
from kerasbn.errors import OptionError, UnsupportedModelError
from kerasbn.graph.model import CallSite, Graph, Value
from kerasbn.graph.read import check_model, read_to_run
from kerasbn.graph.run import Run, Runner, call_at_inference, nbytes_of
from kerasbn.progress import shown
from kerasbn.statistics.data import batches, check_steps, tells_its_end, until_its_end
from kerasbn.statistics.measured import check_finite, set_statistics
from kerasbn.statistics.moments import Meter
from kerasbn.statistics.running import running

_WAITING_BYTES = 2**31
"""How much memory batches may take that wait between two stages."""
_HELD_BYTES = 2**32
"""How much memory the batches of an iterator may take that does not tell its end."""


def calibrate(model: keras.Model, data: Any, steps: int | None = None) -> keras.Model:
    """Re-estimate the statistics that batch normalization uses at inference, over a sample of data.

    The moving averages of training lag behind the weights and forget all but the last batches.
    This replaces them by the moments of the whole sample: of every
    `keras.layers.BatchNormalization` and `kerasbn.layers.BatchNormalization`, in models inside the
    model and inside of layers too, such as recurrent ones, frozen or not. Masked values do not count.
    What is not called at inference keeps its statistics.

    Example:

    ```python
    model.fit(x, y)
    kerasbn.calibrate(model, x)
    ```

    Args:
        model: A Keras model. It is changed in place: the moving means and variances, nothing else.
        data: A sample of inputs: arrays in the structure of the model's inputs, or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches, with targets or
            without. It may be larger than memory, but for a generator, which gives its batches once.
            It is gone through once, or, where the activations of all batches at one layer take more
            than 2 GiB, once for each layer.
        steps: How many batches to take. Defaults to `None`: all there are. Data that never ends,
            such as a dataset that is repeated, needs it.

    Returns:
        The model.

    Raises:
        OptionError: if the data does not fit the model, holds no batch, never ends, or makes a
            layer's input NaN or infinite. The statistics are as before then, and after an interrupt.
        UnsupportedModelError: if the model was not built yet or has no `call`, or calls a batch
            normalization in a way that hides its values, such as `keras.ops.vectorized_map`.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), Algorithm 2.
    """
    check_steps(steps)
    _check(model)
    norms = [norm for norm in norms_in(model) if norm.built]
    kept = [(variable, variable.numpy()) for norm in norms for variable in (norm.moving_mean, norm.moving_variance)]
    try:
        _Calibration(model, data, steps).run()
    except BaseException:  # an interrupt as well
        for variable, value in kept:
            _keras.set_value(variable, value)
        raise
    return model


class _Calibration:
    """The stages of one calibration, and the batches that wait between them."""

    def __init__(self, model: keras.Model, data: Any, steps: int | None) -> None:
        self._model = model
        self._once = _held(data, steps) if isinstance(data, Iterator) else None
        self._data = data
        self._steps = steps
        graph = read_to_run(model) if _keras.is_graph(model) else _as_one_call(model)
        self._runner = Runner(graph, lambda site: bool(norms_in(site.operation)))
        self._norms = {site: norms_in(site.operation) for site in self._runner.sites}
        self._stage_of = _stages(self._runner.sites, self._norms)
        self._waiting: list[Run] = []
        self._meter = Meter()

    def run(self) -> None:
        """Go through all stages."""
        last = max((stage + len(self._norms[site]) for site, stage in self._stage_of.items()), default=0)
        for stage in range(last):
            waiting: list[Run] = []
            size = 0
            for run in self._runs(f"Calibrating, layer {stage + 1} of {last}"):
                with running(self._model), keras.StatelessScope():  # no state of a recurrent layer is written
                    self._advance(run, stage)
                size += run.nbytes
                if size <= _WAITING_BYTES:
                    waiting.append(run)
                else:
                    waiting.clear()
            self._waiting = waiting
            for norm, moments in self._meter.read():
                check_finite(norm, moments)
                set_statistics(norm, moments)

    def _runs(self, doing: str) -> Iterator[Run]:
        if self._waiting:
            yield from shown(self._waiting, doing, len(self._waiting))
        else:
            data = self._data if self._once is None else iter(self._once)
            for inputs in batches(self._model, data, doing, self._steps):
                yield self._runner.start(inputs)

    def _advance(self, run: Run, stage: int) -> None:
        """Take a batch as far as the statistics known by now go, and measure what is next there."""

        def unknown(site: CallSite) -> bool:
            return bool(self._norms[site]) and self._stage_of[site] + len(self._norms[site]) > stage

        self._runner.advance(run, call_at_inference, hold=unknown)
        for site, first in self._stage_of.items():
            if first <= stage < first + len(self._norms[site]):
                with _keras.observed(self._norms[site], _nth(stage - first, self._meter)):
                    self._runner.call(run, site, call_at_inference)


def _check(model: keras.Model) -> None:
    check_model(model)
    if not _keras.has_call(model):
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) has no call, so it is not known what its layers get. "
            "Calibrate the networks that it holds one by one, each on what it is called on."
        )
    if not model.built:
        raise UnsupportedModelError(
            f"Model {model.name!r} was not built yet, so there is nothing to calibrate. Call it on a batch of inputs, "
            "or train it, first."
        )


def _held(batches: Iterator[Any], steps: int | None) -> list[Any]:
    """The batches of an iterator, which gives them once, while each stage goes through them.

    Raises:
        OptionError: if it does not tell its end, and does not come to it within reason.
    """
    held: list[Any] = []
    size = 0
    limited = steps is None and not tells_its_end(batches)
    for batch in until_its_end(batches, steps):
        held.append(batch)
        size += nbytes_of(batch)
        if limited and size > _HELD_BYTES:
            raise OptionError(
                f"Option data has not ended after {len(held)} batches, which take {size / 2**30:.1f} GiB: a generator "
                "gives its batches once, so all are kept. Pass steps, how many to take, or a tf.data.Dataset or "
                "keras.utils.PyDataset, which may be larger than memory."
            )
    return held


def _stages(
    sites: tuple[CallSite, ...], norms: Mapping[CallSite, list[keras.layers.BatchNormalization]]
) -> dict[CallSite, int]:
    """For each call site with normalizations, the stage at which the first of them is measured.

    A site has one stage for each normalization in it, behind those of all sites that it depends
    on. A normalization that is called at several sites has the pooled moments from the last on.
    """
    found: dict[CallSite, int] = {}
    behind: dict[Value, int] = {}
    for site in sites:
        stage = max((behind.get(value, 0) for value in site.inputs), default=0)
        if norms[site]:
            found[site] = stage
        behind.update(dict.fromkeys(site.outputs, stage + len(norms[site])))
    return found


def _nth(number: int, meter: Meter) -> Callable[..., None]:
    """Passes on to a meter the calls of one normalization: the one that is the nth to be called."""
    order: dict[Any, int] = {}

    def note(norm: keras.layers.BatchNormalization, *args: Any, **kwargs: Any) -> None:
        if order.setdefault(norm, len(order)) == number:
            meter(norm, *args, **kwargs)

    return note


def _as_one_call(model: keras.Model) -> Graph:
    """A graph that calls a model as a whole on whatever it is given."""
    given = Value(None)
    site = CallSite(model, model.name, 0, args=(given,), kwargs={}, outputs=())
    return Graph(model, inputs=[given], outputs=[], sites=(site,))
