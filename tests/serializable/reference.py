"""Batch normalization in numpy and float64, by the definition, and its gradients by central differences."""

import numpy as np


def positions(mask, shape, axis):
    """A mask over leading axes, in the shape of the inputs."""
    mask = np.ones(shape[:1], bool) if mask is None else np.asarray(mask, bool)
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def moments(x, counts, axis):
    """Mean, biased variance and count of each channel, over what counts."""
    others = tuple(each for each in range(x.ndim) if each != axis % x.ndim)
    count = counts.sum(others, keepdims=True)
    mean = np.where(counts, x, 0).sum(others, keepdims=True) / np.maximum(count, 1)
    variance = np.where(counts, (x - mean) ** 2, 0).sum(others, keepdims=True) / np.maximum(count, 1)
    return mean, variance, count


def batch_normalization(x, gamma, beta, axis=-1, epsilon=1e-3, mask=None, group=None):
    """Outputs, and mean, variance and count of each group."""
    x = np.asarray(x, "float64")
    gamma, beta = (np.expand_dims(each, tuple(range(1, x.ndim - axis % x.ndim))) for each in (gamma, beta))
    counts = positions(mask, x.shape, axis)
    outputs, found = [], []
    for start in range(0, len(x), group or len(x)):
        part = slice(start, start + (group or len(x)))
        mean, variance, count = moments(x[part], counts[part], axis)
        outputs.append((x[part] - mean) / np.sqrt(variance + epsilon) * gamma + beta)
        found.append((mean.ravel(), variance.ravel(), count.ravel()))
    return np.concatenate(outputs), found


def gradients(x, gamma, beta, dy, step=1e-6, **arguments):
    """The gradients of sum(dy * y) with respect to x, gamma and beta."""

    def derivative(which):
        at = [np.array(each, "float64") for each in (x, gamma, beta)]
        result = np.zeros_like(at[which])
        steps = np.broadcast_to(step, result.shape)
        for index in np.ndindex(result.shape):
            losses = []
            for sign in (1, -1):
                moved = [each.copy() for each in at]
                moved[which][index] += sign * steps[index]
                losses.append(np.sum(dy * batch_normalization(*moved, **arguments)[0]))
            result[index] = (losses[0] - losses[1]) / (2 * steps[index])
        return result

    return [derivative(which) for which in range(3)]
