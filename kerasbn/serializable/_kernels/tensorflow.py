"""Batch normalization with TensorFlow: its fused kernel, and a form for XLA.

The fused kernel, FusedBatchNormV3, takes a batch without a mask, in float32, float16 or bfloat16
with statistics in float32. Everything else runs in the plain form, with its gradient as derived.

XLA turns the fused kernel into slow code on a CPU. While a function is traced nothing tells whether
XLA will compile it; but the compiler knows. So both forms go into the graph, with a switch on the
index of the device: XLA compiles the last branch alone, the plain form, and without XLA TensorFlow
resolves the switch when it places the operations. The gradient is defined outside of the switch, so
that none has to be taken through it.

The kernel of the CPU adds up in float32, one value after another. Over 800 000 values a channel its
variance is off by 1e-4 where the mean is 3 times the standard deviation, and useless where it is 1000
times; over 30 000 values it is as good as Keras's.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from keras import ops

from kerasbn.serializable._kernels import plain
from kerasbn.serializable._kernels.arrangement import arrange
from kerasbn.serializable._kernels.plain import Normalized, Saved

_FUSED_DTYPES = ("float32", "float16", "bfloat16")
_SMALL = 2**16
"""Up to so many values the plain form is faster on a CPU: a call of the kernel costs about 0.1 ms on top."""


def normalize(
    x: Any,
    gamma: Any,
    beta: Any,
    epsilon: float,
    axis: int,
    mask: Any = None,
    group_size: int | None = None,
    synchronized: bool | str = False,
) -> Normalized:
    """Normalize each channel of each group of examples."""
    engine = _engine() if synchronized else plain.ALONE
    x, gamma, beta = (tf.convert_to_tensor(each) for each in (x, gamma, beta))
    if mask is None and group_size is None and engine is plain.ALONE and _may_fuse(x):
        return _fused(x, gamma, beta, epsilon, axis)
    batch = arrange(x, axis, mask=mask, group_size=group_size)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def normalized(x: Any, gamma: Any, beta: Any) -> Any:
        given = dataclasses.replace(batch, x=x)
        results, saved = plain.forward(given, gamma, beta, epsilon, engine)
        return tuple(results), lambda dy, *_: plain.backward(dy, given, saved, engine)

    return plain.restored(Normalized(*normalized(batch.x, gamma, beta)), batch)


def can_infer(x: Any, axis: int) -> bool:
    """Whether the fused kernel takes x as it is: images with the channels last."""
    return len(x.shape) == 4 and axis == 3 and x.dtype in _FUSED_DTYPES


def infer(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Normalize images with the statistics given. XLA compiles this well, and exporters know it."""
    y = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
    ).y
    # TensorFlow would join a convolution, this and tanh behind it into one operation, for which it has no kernel.
    return tf.ensure_shape(y, x.shape)


def _may_fuse(x: Any) -> bool:
    size = x.shape.num_elements()
    return x.dtype.name in _FUSED_DTYPES and (size is None or size > _SMALL)


def _engine() -> plain.Engine:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return plain.ALONE
    return plain.replicated(lambda vector: context.all_reduce(tf.distribute.ReduceOp.SUM, vector))


class _Layout(NamedTuple):
    """How inputs are brought before the fused kernel, which takes images, and its outputs back."""

    data_format: str
    to_kernel: Callable[[Any], Any]
    from_kernel: Callable[[Any], Any]


def _layout(x: Any, axis: int, device: str) -> _Layout:
    """Images with the channels last go as they are, others as `(1, before, after, channels)`.

    On a CPU the kernel trains with the channels last alone; on a GPU channels that are not last stay
    where they are, in `(before, channels, after, 1)`.
    """
    rank = len(x.shape)
    if rank == 4 and axis == 3:
        return _Layout("NHWC", lambda each: each, lambda each: each)
    shape = ops.shape(x)
    before, channels, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    if axis == rank - 1:
        return _Layout(
            "NHWC", lambda each: tf.reshape(each, (1, before, 1, channels)), lambda each: tf.reshape(each, shape)
        )
    if device == "GPU":
        return _Layout(
            "NCHW", lambda each: tf.reshape(each, (before, channels, after, 1)), lambda each: tf.reshape(each, shape)
        )
    return _Layout(
        "NHWC",
        lambda each: tf.transpose(tf.reshape(each, (1, before, channels, after)), (0, 1, 3, 2)),
        lambda each: tf.reshape(tf.transpose(each, (0, 1, 3, 2)), shape),
    )


def _fused(x: Any, gamma: Any, beta: Any, epsilon: float, axis: int) -> Normalized:
    """Normalize a batch without a mask with the fused kernel, or in the form that XLA likes."""
    count = plain.count_of(arrange(x, axis))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def normalized(x: Any, gamma: Any, beta: Any) -> Any:
        form = _form(x)
        y, mean, variance, *reserved = _in_form(
            form,
            lambda device: _kernel_forward(x, gamma, beta, epsilon, count, _layout(x, axis, device)),
            lambda: _plain_forward(x, gamma, beta, epsilon, axis),
        )

        def gradient(dy: Any, *_: Any) -> Any:
            dx, dgamma, dbeta = _in_form(
                form,
                lambda device: _kernel_backward(dy, x, gamma, epsilon, reserved, _layout(x, axis, device)),
                lambda: _plain_backward(dy, x, count, reserved, axis),
            )
            return tf.ensure_shape(dx, x.shape), dgamma, dbeta

        return (tf.ensure_shape(y, x.shape), mean, variance), gradient

    outputs, mean, variance = normalized(x, gamma, beta)
    return Normalized(outputs, tf.reshape(mean, (1, -1)), tf.reshape(variance, (1, -1)), count)


def _kernel_forward(x: Any, gamma: Any, beta: Any, epsilon: float, count: Any, layout: _Layout) -> tuple[Any, ...]:
    y, mean, variance, *reserved = tf.raw_ops.FusedBatchNormV3(
        x=layout.to_kernel(x),
        scale=gamma,
        offset=beta,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        data_format=layout.data_format,
    )
    # The kernel's variance is the unbiased one, and of an empty batch it says NaN.
    mean = tf.math.multiply_no_nan(mean, tf.minimum(count, 1))
    variance = tf.math.multiply_no_nan(variance, tf.maximum(count - 1, 0) / tf.maximum(count, 1))
    return layout.from_kernel(y), mean, variance, *reserved


def _kernel_backward(
    dy: Any, x: Any, gamma: Any, epsilon: float, reserved: Sequence[Any], layout: _Layout
) -> tuple[Any, ...]:
    dx, dgamma, dbeta, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=layout.to_kernel(dy),
        x=layout.to_kernel(x),
        scale=gamma,
        reserve_space_1=reserved[0],
        reserve_space_2=reserved[1],
        reserve_space_3=reserved[2],
        epsilon=epsilon,
        data_format=layout.data_format,
    )
    return layout.from_kernel(dx), dgamma, dbeta


def _plain_forward(x: Any, gamma: Any, beta: Any, epsilon: float, axis: int) -> tuple[Any, ...]:
    """The plain form, with as many vectors reserved for the gradient as the kernel has."""
    batch = arrange(x, axis)
    results, saved = plain.forward(batch, gamma, beta, epsilon)
    outputs, mean, variance, _ = plain.restored(results, batch)
    reserved = (batch.over_groups(each) for each in (saved.mean, saved.inverse, saved.scale))
    return outputs, mean[0], variance[0], *reserved


def _plain_backward(dy: Any, x: Any, count: Any, reserved: Sequence[Any], axis: int) -> tuple[Any, ...]:
    batch = arrange(x, axis)
    mean, inverse, scale = (batch.by_channel(each) for each in reserved)
    dx, dgamma, dbeta = plain.backward(arrange(dy, axis).x, batch, Saved(mean, inverse, scale, count))
    return batch.restored(dx), dgamma, dbeta


def _form(x: Any) -> Any:
    """The form to take: 0 and 1 for the kernel of the CPU and the GPU, 2 for the plain one.

    That is 2 under XLA, for small x on a CPU, and on devices that are neither CPU nor GPU.
    """
    device = tf.raw_ops.DeviceIndex(device_names=("CPU", "GPU"))
    if x.shape.num_elements() is not None:
        return device
    return tf.where((device == 0) & (tf.size(x) <= _SMALL), 2, device)


def _in_form(form: Any, fused: Callable[[str], Any], unfused: Callable[[], Any]) -> Any:
    return tf.switch_case(form, [functools.partial(fused, device) for device in ("CPU", "GPU")], unfused)
