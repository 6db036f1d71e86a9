"""What reaches the layers of a model while it trains, shown in TensorBoard.

Figure 1 of Ioffe & Szegedy (2015) follows the {15, 50, 85}th percentiles of what one sigmoid gets in
the course of training. Without batch normalization they drift; with it they hardly do.
"""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasbn.catalog.roles import Role, role_of
from kerasbn.errors import OptionError
from kerasbn.graph.model import CallSite, Graph
from kerasbn.graph.read import read
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.training.data import batches
from kerasbn.training.moments import Array, array_of

_STATISTICS = ("moving_mean", "moving_variance", "gamma", "beta")


class InputPercentiles(keras.callbacks.Callback):
    """Logs percentiles of what layers get to TensorBoard, and the statistics of batch normalizations.

    After Figure 1 of Ioffe & Szegedy (2015): on the same data every time, in inference mode. Each
    percentile is a run of its own in TensorBoard, so that `inputs/conv2_activation#0` shows all of
    them as lines of one chart. Of a batch normalization `moving_mean/conv2_bn`, `moving_variance`,
    `gamma` and `beta` are logged as well, as percentiles over its channels.

    Example:

    ```python
    percentiles = kerasbn.callbacks.InputPercentiles("logs", x_test[:500], steps=100)
    model.fit(x, y, callbacks=[percentiles])  # then: tensorboard --logdir logs
    ```

    Args:
        log_dir: The folder for the event files, one folder in it for each percentile.
        data: Arrays in the structure of the model's inputs. They are run as one batch.
        layers: A glob over layer paths, or several, such as `["stage1/*", "head"]`. Of a layer with
            several inputs the first one counts. An activation that is built into its layer has no
            input of its own. Defaults to `None`: activations and batch normalizations.
        steps: How many training steps lie between two logs, a positive integer. Defaults to `None`:
            one log an epoch. Either way there is one when training begins.
        percentiles: Which percentiles, in [0, 100]. Defaults to `(15, 50, 85)`.
        channel: The channel to look at, the paper's "typical activation": along the axis of a batch
            normalization, the last axis elsewhere. Its statistics are then the same in all runs.
            Defaults to `None`: all channels pooled.

    Raises:
        OptionError: for an option of the wrong kind; when training begins, for a glob that matches
            no layer, and data that does not fit the model.
        UnsupportedModelError: when training begins, for a model that is neither Sequential nor
            Functional.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), section 4.1.
    """

    def __init__(
        self,
        log_dir: str | Path,
        data: Any,
        layers: str | Iterable[str] | None = None,
        steps: int | None = None,
        percentiles: Sequence[float] = (15, 50, 85),
        channel: int | None = None,
    ) -> None:
        super().__init__()
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise OptionError(f"Option steps is {steps!r}; it must be a positive number of steps, or None.")
        _check_percentiles(percentiles)
        self._log_dir = Path(log_dir)
        self._data = data
        self._layers = layers if layers is None or isinstance(layers, str) else tuple(layers)
        self._steps = steps
        self._percentiles = tuple(percentiles)
        self._channel = channel
        self._writers: list[Any] = []
        self._logged = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the event files and log what is there before the first step."""
        import tensorflow as tf

        self._writers = [
            tf.summary.create_file_writer(str(self._log_dir / f"percentile_{percentile:g}"))
            for percentile in self._percentiles
        ]
        self._log()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Log where `steps` says so."""
        if self._steps is not None and self._step() // self._steps > self._logged // self._steps:
            self._log()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log each epoch, unless `steps` says otherwise."""
        if self._steps is None:
            self._log()

    def on_train_end(self, logs: Any = None) -> None:
        """Close the event files."""
        for writer in self._writers:
            writer.close()
        self._writers = []

    def _step(self) -> int:
        return int(self.model.optimizer.iterations)

    def _log(self) -> None:
        import tensorflow as tf

        graph = read(self.model)
        chosen = _chosen(graph, self._layers)
        seen = {f"inputs/{address}": values for address, values in _inputs(graph, chosen, self._data, self._channel)}
        seen |= dict(_statistics(chosen, self._channel))
        # What tf.summary.scalar writes, which needs TensorBoard to be installed where the training runs.
        kind = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        scalar = tf.compat.v1.SummaryMetadata(plugin_data=kind, data_class="DATA_CLASS_SCALAR")
        self._logged = self._step()
        for writer, percentile in zip(self._writers, self._percentiles, strict=True):
            with writer.as_default(step=self._logged):
                for tag, values in seen.items():
                    tf.summary.write(tag, np.float32(np.percentile(values, percentile)), metadata=scalar)
            writer.flush()


def input_percentiles(
    model: keras.Model,
    data: Any,
    layers: str | Iterable[str] | None = None,
    percentiles: Sequence[float] = (15, 50, 85),
    channel: int | None = None,
) -> Mapping[str, Array]:
    """Percentiles of what layers get, in inference mode.

    Args:
        model: A Sequential or Functional model.
        data: Arrays in the structure of the model's inputs.
        layers: Which layers, as for `InputPercentiles`.
        percentiles: Which percentiles, in [0, 100]. Defaults to `(15, 50, 85)`.
        channel: The channel to look at, as for `InputPercentiles`.

    Returns:
        The percentiles of each call site, by its address, such as `"conv2_activation#0"`.

    Raises:
        OptionError: for a glob that matches no layer, percentiles outside of [0, 100], and data
            that does not fit the model.
        UnsupportedModelError: for a model that is neither Sequential nor Functional.
    """
    _check_percentiles(percentiles)
    graph = read(model)
    inputs = _inputs(graph, _chosen(graph, layers), data, channel)
    return {address: np.percentile(values, percentiles) for address, values in inputs}


def _check_percentiles(percentiles: Sequence[float]) -> None:
    if not percentiles or not all(0 <= percentile <= 100 for percentile in percentiles):
        raise OptionError(
            f"Option percentiles is {percentiles!r}; it must be numbers in [0, 100], such as (15, 50, 85)."
        )


def _chosen(graph: Graph, layers: str | Iterable[str] | None) -> tuple[CallSite, ...]:
    """The call sites to look at."""
    sites = tuple(site for site in graph.walk() if not isinstance(site.operation, Graph) and site.inputs)
    if layers is None:
        watched = {Role.ACTIVATION, Role.BATCH_NORMALIZATION}
        return tuple(site for site in sites if role_of(site.operation) in watched)
    globs = (layers,) if isinstance(layers, str) else tuple(layers)
    for glob in globs:
        if not any(fnmatch.fnmatchcase(site.path, glob) for site in sites):
            raise OptionError(
                f"Option layers holds {glob!r}, which matches no layer of model {graph.name!r}. Layers are matched by "
                f"their path, such as {sites[0].path if sites else 'conv1'!r}."
            )
    return tuple(site for site in sites if any(fnmatch.fnmatchcase(site.path, glob) for glob in globs))


def _inputs(graph: Graph, chosen: Iterable[CallSite], data: Any, channel: int | None) -> Iterator[tuple[str, Array]]:
    """What each of the chosen call sites gets. One in a model that is called again has it all."""
    addresses = {site.address for site in chosen}
    seen: dict[str, list[Array]] = defaultdict(list)

    def call(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if site.address in addresses:
            values = array_of(keras.tree.flatten((args, kwargs))[0])
            seen[site.address].append(_of_channel(site, values, channel).ravel())
        return call_at_inference(site, args, kwargs)

    runner = Runner(graph, lambda site: site.address in addresses)
    (inputs,) = batches(graph.model, iter([(data,)]), "Looking at the layers")
    with keras.StatelessScope():  # no state of a recurrent layer is written
        runner.advance(runner.start(inputs), call)
    return ((address, np.concatenate(parts)) for address, parts in seen.items())


def _of_channel(site: CallSite, values: Array, channel: int | None) -> Array:
    if channel is None:
        return values
    axis = getattr(site.operation, "axis", -1) if role_of(site.operation) is Role.BATCH_NORMALIZATION else -1
    if not -values.shape[axis] <= channel < values.shape[axis]:
        raise OptionError(
            f"Option channel is {channel}, but {site.address} has {values.shape[axis]} channels. "
            "Choose layers that have it, or leave it out to pool all channels."
        )
    return np.take(values, [channel], axis)


def _statistics(chosen: Iterable[CallSite], channel: int | None) -> Iterator[tuple[str, Array]]:
    """Moving averages and weights of the batch normalizations among the chosen."""
    for site in chosen:
        if role_of(site.operation) is Role.BATCH_NORMALIZATION:
            for name in _STATISTICS:
                if (variable := getattr(site.operation, name, None)) is not None:
                    values = array_of(variable)
                    yield f"{name}/{site.path}", values if channel is None else values[channel : channel + 1]
