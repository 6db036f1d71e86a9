"""What `bench_layer.py` times on each backend: some layers, each with a ReLU behind it, in one compiled function.

A call ends when a number that it computed has arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

Call = Callable[[], Any]
Make = Callable[..., Call]
"""Makes a call from layers, inputs and the gradient of the outputs."""


def of_backend() -> tuple[Make, Make]:
    """Training, forward and backward, and inference."""
    return _CALLS[keras.backend.backend()]


def modes() -> Sequence[bool]:
    """With XLA and without, as far as the backend has it."""
    return {"tensorflow": (False, True), "jax": (True,), "torch": (False,)}[keras.backend.backend()]


def _signature(x: Any) -> Any:
    """Tensors like x, of any number of examples, as `fit` traces its step."""
    import tensorflow as tf

    return tf.TensorSpec((None, *x.shape[1:]), x.dtype)


def _tensorflow_training(layers: Sequence[keras.layers.Layer], x: Any, dy: Any, *, xla: bool) -> Call:
    import tensorflow as tf

    @tf.function(jit_compile=xla, autograph=False, input_signature=[_signature(x)] * 2)
    def step(x: Any, dy: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for layer in layers:
                y = tf.nn.relu(layer(y, training=True))
        weights = [variable.value for layer in layers for variable in layer.trainable_variables]
        dx, *others = tape.gradient(y, [x, *weights], output_gradients=dy)
        return tf.reduce_max(dx), dx, others

    return lambda: step(x, dy)[0].numpy()


def _tensorflow_inference(layers: Sequence[keras.layers.Layer], x: Any, dy: Any, *, xla: bool) -> Call:
    import tensorflow as tf

    @tf.function(jit_compile=xla, autograph=False, input_signature=[_signature(x)])
    def step(y: Any) -> Any:
        for layer in layers:
            y = tf.nn.relu(layer(y, training=False))
        return tf.reduce_max(y), y

    return lambda: step(x)[0].numpy()


def _jax_chain(layers: Sequence[keras.layers.Layer], training: bool) -> tuple[Callable[..., Any], Any, Any]:
    """The chain as a function of its weights, state and inputs, and these weights and state."""

    def chain(weights: Any, state: Any, y: Any) -> Any:
        after = []
        for layer, own, others in zip(layers, weights, state, strict=True):
            y, left = layer.stateless_call(own, others, y, **({"training": training} if own else {}))
            y = keras.ops.relu(y)
            after.append(left)
        return y, after

    weights = [[each.value for each in layer.trainable_variables] for layer in layers]
    return chain, weights, [[each.value for each in layer.non_trainable_variables] for layer in layers]


def _jax_training(layers: Sequence[keras.layers.Layer], x: Any, dy: Any, *, xla: bool) -> Call:
    import jax

    chain, weights, state = _jax_chain(layers, training=True)

    @jax.jit
    def step(weights: Any, state: Any, x: Any, dy: Any) -> Any:
        _, derivative, after = jax.vjp(lambda weights, x: chain(weights, state, x), weights, x, has_aux=True)
        others, dx = derivative(dy)
        return dx.max(), dx, others, after

    return lambda: float(step(weights, state, x, dy)[0])


def _jax_inference(layers: Sequence[keras.layers.Layer], x: Any, dy: Any, *, xla: bool) -> Call:
    import jax

    chain, weights, state = _jax_chain(layers, training=False)

    @jax.jit
    def step(weights: Any, state: Any, x: Any) -> Any:
        y, _ = chain(weights, state, x)
        return y.max(), y

    return lambda: float(step(weights, state, x)[0])


def _torch_training(layers: Sequence[keras.layers.Layer], x: Any, dy: Any, *, xla: bool) -> Call:
    import torch

    weights = [variable.value for layer in layers for variable in layer.trainable_variables]

    def step() -> Any:
        given = x.detach().requires_grad_()
        y = given
        for layer in layers:
            y = torch.relu(layer(y, training=True))
        return torch.autograd.grad(y, [given, *weights], grad_outputs=dy)[0].max().item()

    return step


def _torch_inference(layers: Sequence[keras.layers.Layer], x: Any, dy: Any, *, xla: bool) -> Call:
    import torch

    @torch.no_grad()
    def step() -> Any:
        y = x
        for layer in layers:
            y = torch.relu(layer(y, training=False))
        return y.max().item()

    return step


_CALLS: Mapping[str, tuple[Make, Make]] = {
    "tensorflow": (_tensorflow_training, _tensorflow_inference),
    "jax": (_jax_training, _jax_inference),
    "torch": (_torch_training, _torch_inference),
}
