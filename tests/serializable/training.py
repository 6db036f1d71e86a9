"""One step of training through a layer, on each of Keras's backends."""

import keras


def with_gradients(layer, x, dy, mask=None):
    """The outputs of a layer, and the gradients of sum(dy * outputs) with respect to x and its trainable weights."""
    step = {"tensorflow": _by_tape, "jax": _by_vjp, "torch": _by_autograd}[keras.backend.backend()]
    return step(layer, x, dy, mask)


def _by_tape(layer, x, dy, mask):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True, mask=mask)
    sources = [x, *(variable.value for variable in layer.trainable_variables)]
    return [outputs, *tape.gradient(outputs, sources, output_gradients=dy)]


def _by_vjp(layer, x, dy, mask):
    import jax

    def call(x, *weights):
        return layer.stateless_call(weights, layer.non_trainable_variables, x, training=True, mask=mask)

    @jax.jit
    def step(x, dy, *weights):
        outputs, derivative, state = jax.vjp(call, x, *weights, has_aux=True)
        return [outputs, *derivative(dy)], state

    results, state = step(x, dy, *(variable.value for variable in layer.trainable_variables))
    for variable, value in zip(layer.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return results


def _by_autograd(layer, x, dy, mask):
    import torch

    x = x.clone().requires_grad_()
    outputs = layer(x, training=True, mask=mask)
    sources = [x, *(variable.value for variable in layer.trainable_variables)]
    return [outputs, *torch.autograd.grad(outputs, sources, grad_outputs=dy)]
