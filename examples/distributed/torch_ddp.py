"""Two processes train one network under torch, by `DistributedDataParallel`.

    python examples/distributed/torch_ddp.py

Each process has a copy of the network, and its part of every batch. With `synchronized=True` batch normalization has
the statistics of the whole batch, gathered over the default group; without it each copy has its own.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import together
import torch

import kerasbn


def train(rank: int, addresses: list[str], folder: Path) -> together.State:
    """What each of the processes does."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://{addresses[0]}", rank=rank, world_size=together.PROCESSES
    )
    model = together.network(synchronized=True)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    loss = torch.nn.CrossEntropyLoss()
    for images, classes in together.batches(rank, together.PROCESSES):
        parallel.zero_grad()
        loss(parallel(torch.from_numpy(images), training=True), torch.from_numpy(classes)).backward()
        with torch.no_grad():
            model.optimizer.apply([each.value.grad for each in model.trainable_weights], model.trainable_weights)
    trained = together.weights(model)
    kerasbn.calibrate(model, together.sample(rank), synchronized=True)
    state = {"trained": trained, "calibrated": together.weights(model)}
    if rank == 0:
        state["exported"] = together.exported(model, folder / "digits.keras")
    torch.distributed.destroy_process_group()
    return state


if __name__ == "__main__":
    together.main(train)
