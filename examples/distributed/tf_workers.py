"""Two workers train one network under TensorFlow, by `tf.distribute.MultiWorkerMirroredStrategy`.

    python examples/distributed/tf_workers.py

Each worker has a copy of the network, and its part of every batch. With `synchronized=True` batch normalization has the
statistics of the whole batch; without it each copy has its own. `fit` of Keras 3 does not run on workers (keras issue
20585), but its `train_step` does.
"""

import json
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf
import together

import kerasbn


def train(rank: int, addresses: list[str], folder: Path) -> together.State:
    """What each of the workers does."""
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = together.network(synchronized=True)

        @tf.function
        def step(batch):
            return strategy.run(model.train_step, args=(batch,))

        for images, classes in together.batches(rank, together.PROCESSES):
            step((tf.constant(images), tf.constant(classes)))
    trained = together.weights(model)
    kerasbn.calibrate(model, together.sample(rank), synchronized=True)
    state = {"trained": trained, "calibrated": together.weights(model)}
    if rank == 0:
        state["exported"] = together.exported(model, folder / "digits.keras")
    return state


if __name__ == "__main__":
    together.main(train)
