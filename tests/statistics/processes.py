"""What test_processes.py and the processes that it starts have in common."""

import keras
import numpy as np

import kerasbn

SAMPLE = np.random.default_rng(0).normal(3, 2, size=(70, 4)).astype("float32")

# Of the sample, which part each of two processes has; options.
CASES = {
    "unequal": ((slice(0, 50), slice(50, 70)), {}),
    "one has none": ((slice(0, 70), None), {}),
    "passes": ((slice(0, 32), slice(32, 70)), {"passes": 2}),
    "blend": ((slice(0, 7), slice(7, 70)), {"blend": 0.5}),
}


def share(parts, rank):
    """The part of a process."""
    return () if parts[rank] is None else SAMPLE[parts[rank]]


def network(behind):
    """A network with a batch normalization that is called twice, and a layer given behind it."""
    inputs = keras.Input((4,))
    first = kerasbn.layers.BatchNormalization(name="first")
    x = behind(first(keras.layers.Dense(4, "relu", kernel_initializer=keras.initializers.Ones())(inputs)))
    x = first(keras.layers.Dense(4, kernel_initializer=keras.initializers.Identity(2.0))(x))
    x = keras.layers.BatchNormalization(name="second")(keras.layers.Activation("tanh")(x))
    return keras.Model(inputs, keras.layers.Dense(2)(x))
