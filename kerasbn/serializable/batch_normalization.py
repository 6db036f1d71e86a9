"""kerasbn's batch normalization layer.

In training, over the m values of a channel in the batch, or in a ghost batch of it:

    y = gamma (x - mean) / sqrt(variance + epsilon) + beta

At inference the same with the moving statistics. These are averages over the batches, the t-th
of which comes in at a rate a:

    moving <- (1 - a) moving + a batch

    a = 1 - momentum                             as in Keras
    a = (1 - momentum) / (1 - momentum^t)        zero_debias
    a = 1 / t                                    momentum=None, the limit of the above for momentum -> 1

With `accumulate` such a batch is several that training takes one by one. Of mean M, variance V and n values so far, and
a further batch of mean m, variance v and its share s in all values, the pooled moments are (Chan et al., 1979)

    M <- M + (m - M) s        V <- V + (v - V) s + (m - M)^2 s (1 - s)

The second is Adam's correction of the bias: with u_t = sum_i (1 - momentum) momentum^(t - i) batch_i
the average from zero, u_t / (1 - momentum^t) follows from itself at t - 1 by that very step. So the
moving statistics hold the corrected values at any time, whoever reads them; what they started from
counts for nothing once the first batch was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kerasbn.serializable import _kernels
from kerasbn.serializable._kernels import Normalized

MOMENTUM_WHERE_INSERTED = 0.95
"""That of the layers that kerasbn makes where none was given: see docs/reproduce/moving_statistics.md."""


@keras.saving.register_keras_serializable(package="kerasbn")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization (Ioffe & Szegedy, 2015), a drop-in for Keras's own layer.

    Arguments, weights and results are by default those of `keras.layers.BatchNormalization`, and
    weights of either load into the other. It is faster, training and inference, with TensorFlow's
    fused kernel and under XLA; its masks may have any rank; a batch that is empty, masked
    altogether or not finite leaves the moving statistics as they were.

    Example:

    ```python
    ghosts = kerasbn.layers.BatchNormalization(momentum=0.95, zero_debias=True, virtual_batch_size=32)
    model = kerasbn.rewrite(model, norm=ghosts)
    ```

    Args:
        axis: Integer, the axis of the channels. Defaults to `-1`.
        momentum: Float from 0 to 1, the share of the moving statistics that one batch leaves as it
            is. `None`: all batches weigh the same, a cumulative average. Defaults to `0.99`.
        epsilon: Float, added to the variance. With `0`, a channel of variance 0 comes out as NaN. Defaults to
            `1e-3`.
        center: Whether to add `beta`. Defaults to `True`.
        scale: Whether to multiply by `gamma`. Defaults to `True`.
        beta_initializer: Initializer of `beta`. Defaults to `"zeros"`.
        gamma_initializer: Initializer of `gamma`. Defaults to `"ones"`.
        moving_mean_initializer: Initializer of `moving_mean`. Defaults to `"zeros"`.
        moving_variance_initializer: Initializer of `moving_variance`. Defaults to `"ones"`.
        beta_regularizer: Regularizer of `beta`. Defaults to `None`.
        gamma_regularizer: Regularizer of `gamma`. Defaults to `None`.
        beta_constraint: Constraint of `beta`. Defaults to `None`.
        gamma_constraint: Constraint of `gamma`. Defaults to `None`.
        renorm: Whether to use Batch Renormalization (Ioffe, 2017): y = gamma (n r + d) + beta, where
            n is the normalized x, r = sigma / `renorm_stddev` and d = (mean - `renorm_mean`) /
            `renorm_stddev`, without gradients. It has three more weights. Defaults to `False`.
        renorm_clipping: Dictionary with any of `"rmin"`, `"rmax"` and `"dmax"`, floats: r is
            clipped to `[rmin, rmax]`, d to `[-dmax, dmax]`. Defaults to `None`.
        renorm_momentum: Float from 0 to 1, the momentum of `renorm_mean` and `renorm_stddev`.
            Defaults to `0.99`.
        synchronized: Whether all replicas share their statistics, pooled by the number of their values, also with a
            mask: those of a `tf.distribute` strategy, the processes of the default group of `torch.distributed`, or
            under JAX those along the axis that is bound by `shard_map` or `pmap`; a string names it where there are
            several. Where nothing of the sort runs the batch is whole as it is, as with `keras.distribution`. Defaults
            to `False`.
        virtual_batch_size: Positive integer, the number of examples in a ghost batch (Hoffer et al.,
            2017). Each ghost batch is normalized with its own statistics in training, the last one
            being smaller where the batch is no multiple; the moving statistics average theirs,
            weighted by size. Inference is the same. `None`: the whole batch. Defaults to `None`.
        unbiased_variance: Whether the moving variance averages m / (m - 1) times the variance of a
            batch of m values a channel, as in Ioffe & Szegedy's Algorithm 2. A batch of one value
            a channel then leaves the moving statistics alone. Defaults to `False`, as in Keras.
        zero_debias: Whether the moving statistics are corrected for what they started from (Kingma
            and Ba, 2015, section 3), so that they are right from the first batch on, which replaces
            what they held. `momentum=None` needs no correction. Defaults to `False`, as in Keras.
        accumulate: Positive integer, how many batches are one to the moving statistics, which take the
            moments of all their values at once. It is for optimizers that accumulate gradients: what a
            batch is normalized with in training are its own moments all the same. Defaults to `1`.
        frozen_statistics: Whether training normalizes with the moving statistics as well, and leaves them as they
            are, while `gamma` and `beta` are trained. Defaults to `False`.
        **kwargs: Those of every layer, such as `name` and `dtype`.

    Weights:
        `gamma`, `beta`, `moving_mean`, `moving_variance`, each of shape `(channels,)`. With `renorm`,
        `moving_stddev`, `renorm_mean` and `renorm_stddev` too. With `zero_debias` or
        `momentum=None`, `seen_batches` too: how many batches the moving statistics average. With `accumulate`,
        `accumulated_mean`, `accumulated_variance`, `accumulated_count` and `accumulated_batches`
        too: of the batches that are not in the moving statistics yet.

    Call arguments:
        inputs: Floats of any rank.
        training: Whether to normalize with the statistics of the batch, and to update the moving
            ones. A layer with `trainable=False` or `frozen_statistics=True` never does.
        mask: Booleans, the positions that count in the statistics of a batch; the others are
            normalized too. It covers the leading axes of the inputs, as Keras's masks do, or where
            it does not fit there, all of its axes but that of the channels. Sizes of 1 stand for all.

    Input shape:
        Any; the size of the channels' axis must be known.

    Output shape:
        That of the inputs.

    Raises:
        ValueError: if an argument is out of its range, or two of them exclude each other.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), Algorithms 1 and 2.
    - [Ioffe, 2017](https://arxiv.org/abs/1702.03275), Batch Renormalization.
    - [Hoffer et al., 2017](https://arxiv.org/abs/1705.08741), ghost batches, Algorithm 1.
    - [Kingma and Ba, 2015](https://arxiv.org/abs/1412.6980), section 3, the correction of the bias.
    - Chan, Golub and LeVeque, 1979, Updating formulae and a pairwise algorithm for computing sample variances.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float | None = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool | str = False,
        *,
        virtual_batch_size: int | None = None,
        unbiased_variance: bool = False,
        zero_debias: bool = False,
        accumulate: int = 1,
        frozen_statistics: bool = False,
        **kwargs: Any,
    ) -> None:
        # Keras's arguments are in Keras's order, as users may pass them by position.
        super().__init__(
            axis=axis,
            momentum=0.0 if momentum is None else momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
            renorm=renorm,
            renorm_clipping=renorm_clipping,
            renorm_momentum=renorm_momentum,
            **kwargs,
        )
        self.synchronized = synchronized  # which Keras refuses but on TensorFlow
        self.momentum: float | None = None if momentum is None else float(momentum)
        self.virtual_batch_size = virtual_batch_size
        self.unbiased_variance = unbiased_variance
        self.zero_debias = zero_debias
        self.accumulate = accumulate
        self.frozen_statistics = frozen_statistics
        self.seen_batches = None
        self.accumulated_mean: Any = None
        self.accumulated_variance: Any = None
        self.accumulated_count: Any = None
        self.accumulated_batches: Any = None
        self._check_arguments()

    def _check_arguments(self) -> None:
        for name in ("momentum", "renorm_momentum"):
            value = getattr(self, name)
            if not (value is None and name == "momentum") and not 0 <= value <= 1:
                remedy = " (or None for a cumulative average)" if name == "momentum" else ""
                raise ValueError(f"Argument `{name}` must be from 0 to 1{remedy}. Received: {name}={value}")
        if not (self.epsilon >= 0 and math.isfinite(self.epsilon)):
            raise ValueError(
                f"Argument `epsilon` must be a number of at least 0, such as 1e-3. Received: epsilon={self.epsilon}"
            )
        if self.zero_debias and self.momentum == 1:
            raise ValueError(
                "Argument `zero_debias` needs a `momentum` below 1, with which batches count for something; use "
                "momentum=None for the average over all batches. Received: zero_debias=True, momentum=1.0"
            )
        if not isinstance(self.synchronized, bool | str):
            raise ValueError(
                "Argument `synchronized` must be True or False, or under JAX the name of an axis. Received: "
                f"synchronized={self.synchronized!r}"
            )
        if not _is_count(self.accumulate):
            raise ValueError(
                "Argument `accumulate` must be a positive integer, 1 for each batch by itself. Received: "
                f"accumulate={self.accumulate!r}"
            )
        size = self.virtual_batch_size
        if size is None:
            return
        if not _is_count(size):
            raise ValueError(
                "Argument `virtual_batch_size` must be a positive integer, or None for the whole batch. Received: "
                f"virtual_batch_size={size!r}"
            )
        for name in ("renorm", "synchronized"):
            if getattr(self, name):
                raise ValueError(
                    f"Arguments `virtual_batch_size` and `{name}` exclude each other: ghost batches are smaller than "
                    f"a batch, `{name}` is for statistics over more. Received: virtual_batch_size={size}, {name}=True"
                )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights."""
        rank = len(input_shape)
        if not -rank <= self.axis < rank or input_shape[self.axis] is None:
            raise ValueError(
                "Argument `axis` must be an axis of the inputs whose size is known. Received: "
                f"axis={self.axis}, input_shape={tuple(input_shape)}"
            )
        if self.virtual_batch_size is not None and self.axis % rank == 0:
            raise ValueError(
                "Argument `virtual_batch_size` splits up axis 0, so `axis` must be another one. Received: "
                f"axis={self.axis}, input_shape={tuple(input_shape)}"
            )
        super().build(input_shape)
        if self.momentum is None or self.zero_debias:
            self.seen_batches = self.add_weight(
                shape=(input_shape[self.axis],),
                name="seen_batches",
                initializer="zeros",
                dtype="float32",
                trainable=False,
                autocast=False,
            )
        if self.accumulate > 1:
            channels = (input_shape[self.axis],)
            self.accumulated_mean = self._accumulator("mean", channels)
            self.accumulated_variance = self._accumulator("variance", channels)
            self.accumulated_count = self._accumulator("count", channels)
            self.accumulated_batches = self._accumulator("batches", ())

    def _accumulator(self, name: str, shape: tuple[int | None, ...]) -> keras.Variable:
        return self.add_weight(
            shape=shape,
            name=f"accumulated_{name}",
            initializer="zeros",
            dtype=keras.backend.result_type(self.variable_dtype, "float32"),
            trainable=False,
            autocast=False,
        )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize."""
        x = ops.convert_to_tensor(inputs)
        if not keras.backend.is_float_dtype(x.dtype):
            x = ops.cast(x, self.compute_dtype)
        axis = self.axis % len(x.shape)
        dtype = _kernels.dtype_of_statistics(x)
        gamma = ops.ones(self.moving_mean.shape, dtype) if self.gamma is None else ops.cast(self.gamma, dtype)
        beta = ops.zeros(self.moving_mean.shape, dtype) if self.beta is None else ops.cast(self.beta, dtype)
        if training and self.trainable and not self.frozen_statistics:
            outputs = self._normalize_batch(x, gamma, beta, mask, axis)
        else:
            mean, variance = ops.cast(self.moving_mean, dtype), ops.cast(self.moving_variance, dtype)
            outputs = _kernels.infer(x, mean, variance, gamma, beta, epsilon=self.epsilon, axis=axis)
        return ops.cast(outputs, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "virtual_batch_size": self.virtual_batch_size,
            "unbiased_variance": self.unbiased_variance,
            "zero_debias": self.zero_debias,
            "accumulate": self.accumulate,
            "frozen_statistics": self.frozen_statistics,
        }

    def _normalize_batch(self, x: Any, gamma: Any, beta: Any, mask: Any, axis: int) -> Any:
        """Normalize a batch with its own statistics, and let the moving ones have them."""
        results = _kernels.normalize(
            x,
            *((ops.ones_like(gamma), ops.zeros_like(beta)) if self.renorm else (gamma, beta)),
            epsilon=self.epsilon,
            axis=axis,
            mask=mask,
            group_size=self.virtual_batch_size,
            synchronized=self.synchronized,
        )
        outputs = self._renormalized(results, gamma, beta, axis) if self.renorm else results.outputs
        if self.accumulate == 1:
            self._update(*self._statistics_of(results))
        else:
            self._accumulate(*self._moments_of(results))
        return outputs

    def _renormalized(self, results: Normalized, gamma: Any, beta: Any, axis: int) -> Any:
        """Gamma (n r + d) + beta, of the normalized values n."""
        dtype = results.mean.dtype
        sigma = ops.sqrt(results.variance[0] + self.epsilon)
        reference = ops.maximum(ops.cast(self.renorm_stddev, dtype), math.sqrt(self.epsilon))
        r = sigma / reference
        d = (results.mean[0] - ops.cast(self.renorm_mean, dtype)) / reference
        clipping = self.renorm_clipping or {}
        if clipping.get("rmin") is not None:
            r = ops.maximum(r, clipping["rmin"])
        if clipping.get("rmax") is not None:
            r = ops.minimum(r, clipping["rmax"])
        if clipping.get("dmax") is not None:
            d = ops.clip(d, -clipping["dmax"], clipping["dmax"])
        shape = [-1 if each == axis else 1 for each in range(len(results.outputs.shape))]
        scale = ops.reshape(ops.stop_gradient(r) * gamma, shape)
        offset = ops.reshape(ops.stop_gradient(d) * gamma + beta, shape)
        return ops.cast(results.outputs, dtype) * scale + offset

    def _statistics_of(self, results: Normalized) -> tuple[Any, Any, Any]:
        """Mean and variance for the moving statistics, and which of them there is data for.

        Ghost batches are averaged, weighted by their size.
        """
        _, mean, variance, count = results
        if mean.shape[0] == 1:
            variance, enough = self._estimated(variance, count)
            return mean[0], variance[0], enough if isinstance(enough, bool) else ops.reshape(enough, (-1,))
        mean, variance, total = self._average_of_ghosts(results)
        return mean, variance, total > 0

    def _moments_of(self, results: Normalized) -> tuple[Any, Any, Any]:
        """Mean and variance to be pooled with those of other batches, and how many values they are of."""
        if self.virtual_batch_size is not None:
            return self._average_of_ghosts(results)
        _, mean, variance, count = results
        return ops.reshape(mean, (-1,)), ops.reshape(variance, (-1,)), ops.reshape(count * ops.ones_like(mean), (-1,))

    def _estimated(self, variance: Any, count: Any) -> tuple[Any, Any]:
        """The variance of which the one of so many values is a sample, if that is asked for, and if they are enough."""
        if not self.unbiased_variance:
            return variance, count > 0
        others = max(count - 1, 1) if isinstance(count, int) else ops.maximum(count - 1, 1)
        return variance * (count / others), count > 1

    def _average_of_ghosts(self, results: Normalized) -> tuple[Any, Any, Any]:
        _, mean, variance, count = results
        variance, enough = self._estimated(variance, count)
        weight = ops.where(enough, count, 0) * ops.ones_like(mean)
        total = ops.sum(weight, axis=0)
        mean, variance = (ops.sum(each * weight, axis=0) / ops.maximum(total, 1) for each in (mean, variance))
        return mean, variance, total

    def _accumulate(self, mean: Any, variance: Any, count: Any) -> None:
        """Pool the moments of a batch with those before it; the moving statistics get them when there are enough."""
        kept = (self.accumulated_mean, self.accumulated_variance, self.accumulated_count)
        dtype = self.accumulated_mean.dtype
        old_mean, old_variance, old_count = (ops.convert_to_tensor(each) for each in kept)
        mean, variance, count = (ops.cast(each, dtype) for each in (mean, variance, count))
        seen = ops.logical_and(count > 0, ops.all(ops.isfinite(mean + variance)))
        mean, variance = ops.where(seen, mean, old_mean), ops.where(seen, variance, old_variance)
        count = old_count + ops.where(seen, count, 0)
        share = (count - old_count) / ops.maximum(count, 1)
        shift = mean - old_mean
        pooled_mean = old_mean + shift * share
        pooled_variance = old_variance + (variance - old_variance) * share
        if self.virtual_batch_size is None:
            pooled_variance = pooled_variance + ops.square(shift) * share * (1 - share)
            estimated, enough = self._estimated(pooled_variance, count)
        else:
            estimated, enough = pooled_variance, count > 0
        batches = ops.convert_to_tensor(self.accumulated_batches) + 1
        is_full = batches >= self.accumulate
        self._update(pooled_mean, estimated, ops.logical_and(enough, is_full))
        for variable, value in zip(kept, (pooled_mean, pooled_variance, count), strict=True):
            variable.assign(ops.where(is_full, ops.zeros_like(value), value))
        self.accumulated_batches.assign(ops.where(is_full, ops.zeros_like(batches), batches))

    def _update(self, mean: Any, variance: Any, enough: Any) -> None:
        """Take the statistics of a batch into the moving ones, unless they are not finite."""
        finite = _kernels.all_finite(mean, variance)
        seen = finite if enough is True else ops.logical_and(enough, finite)
        rate = self._rate(seen)
        self._move(self.moving_mean, mean, rate, seen)
        if not self.renorm:
            self._move(self.moving_variance, variance, rate, seen)
            return
        stddev = ops.sqrt(variance + self.epsilon)
        self._move(self.renorm_mean, mean, 1.0 - self.renorm_momentum, seen)
        self._move(self.renorm_stddev, stddev, 1.0 - self.renorm_momentum, seen)
        self._move(self.moving_stddev, stddev, rate, seen)
        moved = ops.square(ops.cast(self.moving_stddev, stddev.dtype)) - self.epsilon
        self._move(self.moving_variance, ops.relu(moved), 1.0, seen)

    def _rate(self, seen: Any) -> Any:
        """The share of a batch in the moving statistics."""
        if self.seen_batches is None:
            return 1.0 - (self.momentum or 0.0)
        seen_batches = ops.convert_to_tensor(self.seen_batches) + ops.cast(seen, "float32")
        self.seen_batches.assign(seen_batches)
        batches = ops.maximum(seen_batches, 1.0)
        if self.momentum is None:
            return 1.0 / batches
        if self.momentum == 0:
            return 1.0
        return (1.0 - self.momentum) / -ops.expm1(batches * math.log(self.momentum))

    def _move(self, variable: keras.Variable, value: Any, rate: Any, seen: Any) -> None:
        variable.assign(_kernels.moved(variable, value, rate, seen))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
