"""What reaches the layers, followed in the course of training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasbn.arrays import array_of
from kerasbn.errors import OptionError
from kerasbn.statistics.percentiles import Watch, check_percentiles


class InputPercentiles(keras.callbacks.Callback):
    """Logs percentiles of what layers get to TensorBoard, and the statistics of batch normalizations.

    After Figure 1 of Ioffe & Szegedy (2015): on the same data every time, in inference mode. Each
    percentile is a run of its own in TensorBoard, so that `inputs/conv2_activation#0` shows all of
    them as lines of one chart. Of a batch normalization `moving_mean/conv2_bn`, `moving_variance`,
    `gamma` and `beta` are logged as well, as percentiles over its channels. One inside of a layer, such as
    a recurrent one, goes by its path there, `both/forward_lstm/lstm_cell_bn`. Values that are masked do not
    count for it.

    Example:

    ```python
    percentiles = kerasbn.callbacks.InputPercentiles("logs", x_test[:500], steps=100)
    model.fit(x, y, callbacks=[percentiles])  # then: tensorboard --logdir logs
    ```

    Args:
        log_dir: The folder for the event files, one folder in it for each percentile.
        data: Arrays in the structure of the model's inputs. They are run as one batch.
        layers: A glob over layer paths, or several, such as `["stage1/*", "head"]`; of what is inside of a
            layer, those of batch normalizations. Of a layer with several inputs the first one counts. An
            activation that is built into its layer has no input of its own. Defaults to `None`:
            activations and batch normalizations.
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
        check_percentiles(percentiles)
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
        return int(array_of(self.model.optimizer.iterations))

    def _log(self) -> None:
        import tensorflow as tf

        watch = Watch(self.model, self._layers, self._channel)
        seen = {f"inputs/{address}": values for address, values in watch.inputs(self._data)}
        seen |= dict(watch.statistics())
        # What tf.summary.scalar writes, which needs TensorBoard to be installed where the training runs.
        kind = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        scalar = tf.compat.v1.SummaryMetadata(plugin_data=kind, data_class="DATA_CLASS_SCALAR")
        self._logged = self._step()
        for writer, percentile in zip(self._writers, self._percentiles, strict=True):
            with writer.as_default(step=self._logged):
                for tag, values in seen.items():
                    tf.summary.write(tag, np.float32(np.percentile(values, percentile)), metadata=scalar)
            writer.flush()
