"""Two processes train one network under JAX, by `keras.distribution`, as on many hosts.

    python examples/distributed/jax_two_processes.py

Each process gives its part of every batch; the network, its statistics among it, is one that both hold. So both do all
that makes or changes a network, and either can do by itself what reads it, as `kerasbn.export` does.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
import together

import kerasbn


def train(rank: int, addresses: list[str], folder: Path) -> together.State:
    """What each of the processes does."""
    keras.distribution.initialize(addresses[0], together.PROCESSES, rank)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    model = together.network()
    images, classes = (np.concatenate(each) for each in zip(*together.batches(rank, together.PROCESSES), strict=True))
    model.fit(images, classes, batch_size=together.BATCH // together.PROCESSES, shuffle=False, verbose=0)
    trained = together.weights(model)
    kerasbn.calibrate(model, together.sample(rank), synchronized=True)
    state = {"trained": trained, "calibrated": together.weights(model)}
    if rank == 0:
        keras.distribution.set_distribution(None)  # what is loaded is this process's own
        state["exported"] = together.exported(model, folder / "digits.keras")
    return state


if __name__ == "__main__":
    together.main(train)
