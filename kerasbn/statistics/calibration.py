"""Re-estimate the population statistics of batch normalization (Ioffe & Szegedy, 2015, Algorithm 2).

    E[x]   <- mean over the data,   Var[x] <- m/(m - 1) variance over the data

Layer after layer: the statistics of a layer are measured while all those ahead of it use theirs. So
each one has its stage. All batches go through the network stage by stage, and wait between two
stages at the layers to be measured next; where they do not fit into memory, they start anew.

In a given number of passes instead, all layers are measured at once. In the first pass they normalize by
the moments of each batch, in each further one by what the pass before has found: then the statistics of one more
layer in a row are right after each, and those of the others closer.

Blended statistics (Schneider et al., 2020, section 3): (1 - blend) old + blend measured.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import keras

from kerasbn import _keras
from kerasbn.arrays import Array, array_of
from kerasbn.catalog.norms import chosen_norms, is_frozen, norms_in, thawed
from kerasbn.errors import OptionError, UnsupportedModelError, listed
from kerasbn.graph.model import CallSite, Graph, Value
from kerasbn.graph.read import check_model, is_built, read_to_run
from kerasbn.graph.run import Run, Runner, call_at_inference, nbytes_of
from kerasbn.processes import Processes, processes_for
from kerasbn.progress import shown
from kerasbn.statistics.data import batches, check_steps, tells_its_end, until_its_end
from kerasbn.statistics.measured import measured_by_all, set_statistics, statistics_in, uncorrected
from kerasbn.statistics.moments import Meter, Norm
from kerasbn.statistics.running import running

Statistics: TypeAlias = dict[str, Array]
"""The statistics of a batch normalization, by the names of the weights that hold them."""

_WAITING_BYTES = 2**31
"""How much memory batches may take that wait between two stages."""
_HELD_BYTES = 2**32
"""How much memory the batches of an iterator may take that does not tell its end."""


def calibrate(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    *,
    layers: str | Iterable[str] = "*",
    frozen: bool = False,
    blend: float = 1.0,
    passes: int | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """Re-estimate the statistics that batch normalization uses at inference, over a sample of data.

    The moving averages of training lag behind the weights and forget all but the last batches.
    This replaces them by the moments of the whole sample: of every
    `keras.layers.BatchNormalization` and `kerasbn.layers.BatchNormalization`, in models inside the
    model and inside of layers too, such as recurrent ones. Masked values do not count.
    What is not called at inference keeps its statistics, and so does what is frozen, which a `UserWarning` names.

    Example:

    ```python
    model.fit(x, y)
    kerasbn.calibrate(model, x)
    ```

    Args:
        model: A Keras model. It is changed in place: the statistics of batch normalizations, nothing else.
        data: A sample of inputs: arrays in the structure of the model's inputs, or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches, with targets or
            without. It may be larger than memory, but for a generator, which gives its batches once.
            It is gone through once, or, where the activations of all batches at one layer take more
            than 2 GiB, once for each layer.
        steps: How many batches to take. Defaults to `None`: all there are. Data that never ends,
            such as a dataset that is repeated, needs it.
        layers: A glob over the paths of batch normalizations, or several, such as `["stage1/*", "head_bn"]`.
            Defaults to `"*"`: all.
        frozen: Whether those that are frozen are measured as well, by `kerasbn.freeze` or `trainable=False`.
            Defaults to `False`.
        blend: How much the measured statistics count against those that were there, from 0 to 1, for a sample too
            small to stand alone. Defaults to `1.0`.
        passes: How many times to go through the data, all layers measured at once: cheaper in a deep network with
            large inputs, where the exact way takes a pass for each layer. One pass normalizes by the batch
            ahead of each layer, so it wants batches of the size of training. Defaults to `None`: exact.
        synchronized: Whether the processes that share the training of the model each give a share of the data, of any
            size, none (`()`) included, and all end with the statistics of the whole, the same to the last bit. All of
            them call this then, with the same options; where one fails, all do. Defaults to `False`: the data is
            that of this process alone.

    Returns:
        The model.

    Raises:
        OptionError: if an option is not valid; a glob matches no batch normalization; the data does not fit
            the model, holds no batch, never ends, or makes a layer's input NaN or infinite. The statistics are as
            before then, and after an interrupt.
        UnsupportedModelError: if the model was not built yet or has no `call`, or calls a batch
            normalization in a way that hides its values, such as `keras.ops.vectorized_map`.
        ProcessError: if another process fails, or is gone. The statistics are as before then.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), Algorithm 2.
    - [Schneider et al., 2020](https://arxiv.org/abs/2006.16971), section 3, blended statistics.
    """
    check_model(model)
    left: list[str] = []

    def chosen() -> Iterable[Norm]:
        check_steps(steps)
        _check_share(blend)
        _check_passes(passes)
        norms = chosen_norms(model, layers)
        if frozen:
            return norms
        left.extend(path for norm, path in norms.items() if is_frozen(norm))
        return [norm for norm in norms if not is_frozen(norm)]

    measure(model, data, steps, chosen=chosen, blend=blend, passes=passes, synchronized=synchronized)
    if left:
        warnings.warn(
            f"Frozen, so their statistics are left as they are: {listed(left)}. Pass frozen=True to measure them too.",
            stacklevel=2,
        )
    return model


def measure(
    model: keras.Model,
    data: Any,
    steps: int | None,
    *,
    chosen: Callable[[], Iterable[Norm]],
    blend: float = 1.0,
    passes: int | None = None,
    synchronized: bool = False,
) -> None:
    """Give the batch normalizations that are chosen statistics measured on data; see `calibrate`."""
    processes = processes_for(model, synchronized=synchronized)

    def begin() -> _Calibration | None:
        _check(model)
        norms = statistics_of(chosen())
        return _Calibration(model, data, steps, norms, blend, passes, processes) if norms else None

    calibration = processes.alike(begin, str)
    if calibration is None:
        return
    try:
        calibration.run()
    except BaseException:  # an interrupt as well
        calibration.undo()
        raise


def statistics_of(norms: Iterable[Norm]) -> dict[Norm, Statistics]:
    """The statistics that batch normalizations have, those that were built."""
    return {
        norm: {name: array_of(_keras.own_copy(weight)) for name, weight in statistics_in(norm).items()}
        for norm in norms
        if norm.built
    }


def put_back(kept: Mapping[Norm, Statistics]) -> None:
    """Give batch normalizations the statistics that they had."""
    for norm, statistics in kept.items():
        for name, weight in statistics_in(norm).items():
            _keras.set_value(weight, statistics[name])


class _Calibration:
    """The stages of one calibration, and the batches that wait between them."""

    def __init__(
        self,
        model: keras.Model,
        data: Any,
        steps: int | None,
        chosen: Mapping[Norm, Statistics],
        blend: float,
        passes: int | None,
        processes: Processes,
    ) -> None:
        self._model = model
        self._once = _held(data, steps) if isinstance(data, Iterator) else None
        self._data = data
        self._steps = steps
        self._before = chosen
        self._blend = blend
        self._passes = passes
        self._processes = processes
        graph = read_to_run(model) if _keras.is_graph(model) else _as_one_call(model)
        self._runner = Runner(graph, lambda site: any(norm in chosen for norm in norms_in(site.operation)))
        self._norms = {
            site: [norm for norm in norms_in(site.operation) if norm in chosen] for site in self._runner.sites
        }
        self._stage_of = _stages(self._runner.sites, self._norms)
        self._waiting: list[Run] = []

    def __str__(self) -> str:
        """What has to be alike where several processes calibrate."""
        layers = [(norm.name, tuple(norm.moving_mean.shape)) for norm in self._before]
        return repr((layers, [*self._stage_of.values()], self._blend, self._passes))

    def run(self) -> None:
        """Measure layer after layer, or all at once so many times."""
        if self._passes is None:
            self._run_in_stages()
        else:
            self._run_in(self._passes)

    def undo(self) -> None:
        """Put back the statistics that there were."""
        put_back(self._before)

    def _run_in_stages(self) -> None:
        last = max((stage + len(self._norms[site]) for site, stage in self._stage_of.items()), default=0)
        meter = Meter()
        for stage in range(last):
            sites = [site for site, first in self._stage_of.items() if first <= stage < first + len(self._norms[site])]
            norms = list(dict.fromkeys(norm for site in sites for norm in self._norms[site]))
            doing = f"Calibrating, layer {stage + 1} of {last}"
            self._measure(norms, meter, partial(self._go_through, stage, doing, meter))

    def _go_through(self, stage: int, doing: str, meter: Meter) -> bool:
        """Take all batches through a stage; whether there were any."""
        waiting: list[Run] = []
        size, any_batch = 0, False
        for run in self._runs(doing):
            any_batch = True
            with running(self._model), _keras.aside(self._model):  # no state of a recurrent layer is written
                self._advance(run, stage, meter)
            size += run.nbytes
            if size <= _WAITING_BYTES:
                waiting.append(run)
            else:
                waiting.clear()
        self._waiting = waiting
        return any_batch

    def _run_in(self, passes: int) -> None:
        norms = list(self._before)
        for number in range(passes):
            meter = Meter()
            doing = f"Calibrating, pass {number + 1} of {passes}"
            self._measure(norms, meter, partial(self._pass, doing, meter, by_the_batch=number == 0))

    def _pass(self, doing: str, meter: Meter, *, by_the_batch: bool) -> bool:
        """Take all batches through the model; whether there were any."""
        norms = list(self._before)
        any_batch = False
        for run in self._runs(doing):
            any_batch = True
            first = _by_the_batch(norms) if by_the_batch else contextlib.nullcontext()
            with running(self._model), _keras.aside(self._model), _keras.observed(norms, meter), first:
                self._runner.advance(run, call_at_inference, hold=lambda site: not site.outputs)
                for site in self._runner.sites:
                    if not site.outputs:  # a model as one call
                        self._runner.call(run, site, call_at_inference)
        return any_batch

    def _measure(self, norms: list[Norm], meter: Meter, go: Callable[[], bool]) -> None:
        """Let layers have the moments that the batches of all processes have there."""
        for norm, moments in measured_by_all(self._processes, norms, meter, go):
            before = self._before[norm]
            mean = self._blended(before["moving_mean"], moments.mean)
            set_statistics(norm, mean, self._blended(before["moving_variance"], moments.variance))

    def _blended(self, old: Array, new: Array) -> Array:
        """The measured statistics with their share of the old ones, whatever these are if they have none."""
        return new if self._blend == 1 else (1 - self._blend) * old + self._blend * new

    def _runs(self, doing: str) -> Iterator[Run]:
        if self._waiting:
            yield from shown(self._waiting, doing, len(self._waiting))
        else:
            data = self._data if self._once is None else iter(self._once)
            several = self._processes.count > 1
            for inputs in batches(self._model, data, doing, self._steps, may_be_none=several):
                yield self._runner.start(inputs)

    def _advance(self, run: Run, stage: int, meter: Meter) -> None:
        """Take a batch as far as the statistics known by now go, and measure what is next there."""

        def unknown(site: CallSite) -> bool:
            return bool(self._norms[site]) and self._stage_of[site] + len(self._norms[site]) > stage

        self._runner.advance(run, call_at_inference, hold=unknown)
        for site, first in self._stage_of.items():
            if first <= stage < first + len(self._norms[site]):
                with _keras.observed(self._norms[site], _nth(stage - first, meter)):
                    self._runner.call(run, site, call_at_inference)


@contextlib.contextmanager
def _by_the_batch(norms: Collection[Norm]) -> Iterator[None]:
    """Inside, batch normalizations run as in training, frozen or not."""
    with thawed(norms), uncorrected(norms), _keras.told(norms, training=True):
        yield


def _check(model: keras.Model) -> None:
    check_model(model)
    if not _keras.has_call(model):
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) has no call, so it is not known what its layers get. "
            "Calibrate the networks that it holds one by one, each on what it is called on."
        )
    if not is_built(model):
        raise UnsupportedModelError(
            f"Model {model.name!r} was not built yet, so there is nothing to calibrate. Call it on a batch of inputs "
            "first."
        )


def _check_share(blend: Any) -> None:
    if isinstance(blend, bool) or not isinstance(blend, int | float) or not 0 <= blend <= 1:
        raise OptionError(f"Option blend is {blend!r}; it must be a number from 0 to 1, such as 0.7.")


def _check_passes(passes: Any) -> None:
    if passes is not None and (isinstance(passes, bool) or not isinstance(passes, int) or passes < 1):
        raise OptionError(f"Option passes is {passes!r}; it must be a positive number of passes, or None.")


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


def _stages(sites: tuple[CallSite, ...], norms: Mapping[CallSite, list[Norm]]) -> dict[CallSite, int]:
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

    def note(norm: Norm, *args: Any, **kwargs: Any) -> None:
        if order.setdefault(norm, len(order)) == number:
            meter(norm, *args, **kwargs)

    return note


def _as_one_call(model: keras.Model) -> Graph:
    """A graph that calls a model as a whole on whatever it is given."""
    given = Value(None)
    site = CallSite(model, model.name, 0, args=(given,), kwargs={}, outputs=())
    return Graph(model, inputs=[given], outputs=[], sites=(site,))
