"""Batch-normalized recurrent layers in numpy and float64, by the definition, step by step."""

import numpy as np

from tests.serializable import reference


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def simple_rnn(z, states, recurrent, bias):
    return [np.tanh(z + states[0] @ recurrent)]


def lstm(z, states, recurrent, bias):
    h, c = states
    i, f, g, o = np.split(z + h @ recurrent, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def gru(z, states, recurrent, bias):
    (h,) = states
    in_z, in_r, in_h = np.split(z, 3, axis=1)
    u_z, u_r, u_h = np.split(recurrent, 3, axis=1)
    update, reset = sigmoid(in_z + h @ u_z), sigmoid(in_r + h @ u_r)
    return [update * h + (1 - update) * np.tanh(in_h + (reset * h) @ u_h)]


def gru_reset_after(z, states, recurrent, bias):
    (h,) = states
    in_z, in_r, in_h = np.split(z, 3, axis=1)
    of_z, of_r, of_h = np.split(h @ recurrent + bias, 3, axis=1)
    update, reset = sigmoid(in_z + of_z), sigmoid(in_r + of_r)
    return [update * h + (1 - update) * np.tanh(in_h + reset * of_h)]


STEPS = {"SimpleRNN": (simple_rnn, 1), "LSTM": (lstm, 2), "GRU": (gru, 1), "GRU, reset after": (gru_reset_after, 1)}


def recurrent(
    kind, x, kernel, recurrent_kernel, gamma, beta, bias=None, *, moments=None, mask=None, backwards=False, state=None
):
    """All outputs, the last states, and mean and variance of the input product.

    Args:
        kind: A key of `STEPS`.
        moments: Mean and variance to normalize with. `None`: those of the batch.
    """
    step, count = STEPS[kind]
    bias = np.zeros(kernel.shape[1]) if bias is None else bias
    of_input, of_state = bias if bias.ndim == 2 else (bias, np.zeros(kernel.shape[1]))
    products = x @ kernel
    if moments is None:
        normalized, [moments] = reference.batch_normalization(products, gamma, beta, mask=mask)
    else:
        normalized = (products - moments[0]) / np.sqrt(moments[1] + 1e-3) * gamma + beta
    normalized = normalized + of_input
    units = len(recurrent_kernel)
    states = [np.zeros((len(x), units))] * count if state is None else state
    counts = np.ones(x.shape[:2], bool) if mask is None else mask
    outputs, output = [], np.zeros((len(x), units))
    for at in range(x.shape[1])[:: -1 if backwards else 1]:
        after = step(normalized[:, at], states, recurrent_kernel, of_state)
        here = counts[:, at, None]
        states = [np.where(here, new, old) for new, old in zip(after, states, strict=True)]
        output = np.where(here, after[0], output)
        outputs.append(output)
    return np.stack(outputs, axis=1), states, moments[:2]
