"""One process trains a network on two devices under TensorFlow, by `tf.distribute.MirroredStrategy`.

    python examples/distributed/tf_mirrored.py

Here they are two parts of one CPU. What is made of the network, such as by `kerasbn.rewrite`, is in its strategy too,
inside of the scope and outside of it.
"""

import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import tensorflow as tf
import together

import kerasbn


def train(folder: Path) -> together.State:
    """Train on two devices."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = together.network(synchronized=True)
    images, classes = (np.concatenate(each) for each in zip(*together.batches(), strict=True))
    model.fit(images, classes, batch_size=together.BATCH, shuffle=False, verbose=0)
    trained = together.weights(model)
    kerasbn.calibrate(model, together.digits()[0])
    exported = together.exported(model, folder / "digits.keras")
    return {"trained": trained, "calibrated": together.weights(model), "exported": exported}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        together.compare(train(Path(folder)), together.alone(Path(folder)))
