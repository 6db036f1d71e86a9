"""What test_processes.py and the processes that it starts have in common."""

import keras
import numpy as np

import kerasbn

SAMPLE = np.random.default_rng(0).normal(3, 2, size=(70, 4)).astype("float32")

UNEQUAL = slice(0, 50), slice(50, 70)

# Of the sample, which part each of two processes has; options.
CASES = {
    "unequal": (UNEQUAL, {}),
    "one has none": ((slice(0, 70), None), {}),
    "passes": ((slice(0, 32), slice(32, 70)), {"passes": 2}),
    "blend": ((slice(0, 7), slice(7, 70)), {"blend": 0.5}),
}


class Sequence(keras.utils.PyDataset):
    """Batches of 8."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        """How many."""
        return -(-len(self.images) // 8)

    def __getitem__(self, index):
        """One of them, without targets."""
        return (self.images[8 * index : 8 * index + 8],)


def tf_data(images):
    """A `tf.data.Dataset`."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(images).batch(16)


def data_loader(images):
    """A `torch.utils.data.DataLoader`, where there is torch."""
    from torch.utils import data

    return data.DataLoader(data.TensorDataset(keras.ops.convert_to_tensor(images)), batch_size=16)


FEEDS = {
    "generator": lambda images: iter(np.array_split(images, 3)),
    "PyDataset": Sequence,
    "tf.data": tf_data,
    **({"DataLoader": data_loader} if keras.backend.backend() == "torch" else {}),
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
