"""kerasbn's batch normalization layer."""

import keras


@keras.saving.register_keras_serializable(package="kerasbn")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization (Ioffe & Szegedy, 2015), a drop-in for Keras's own layer.

    Arguments, weights, configuration and results are those of `keras.layers.BatchNormalization`;
    weights of either load into the other.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), Algorithms 1 and 2.
    """
