"""What the programs beside this one share: digits, a network, a second process, and the comparison with one process."""

import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

import kerasbn

PROCESSES = 2
STEPS, BATCH = 20, 64
PARTS = slice(0, 1000), slice(1000, None)
"""Which of the digits each process calibrates on: unequal shares."""
TOLERANCE = 1e-5

State = dict[str, list[np.ndarray]]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images as rows of 64 pixels from 0 to 1, and what they show."""
    images, classes = load_digits(return_X_y=True)
    return (images / 16).astype("float32"), classes


def batches(rank: int = 0, count: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """What one of several processes gets of each batch of training."""
    images, classes = digits()
    size = BATCH // count
    rows = [slice(start, start + size) for start in range(rank * size, STEPS * BATCH, BATCH)]
    return [(images[each], classes[each]) for each in rows]


def sample(rank: int) -> np.ndarray:
    """What a process calibrates on."""
    return digits()[0][PARTS[rank]]


def network(**arguments: object) -> keras.Model:
    """A network that was rewritten, its batch normalization of these arguments."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return kerasbn.rewrite(model, norm=kerasbn.layers.BatchNormalization(momentum=0.9, **arguments))


def weights(model: keras.Model) -> list[np.ndarray]:
    """The weights and statistics of a model."""
    return [np.array(keras.ops.convert_to_numpy(each)) for each in model.variables]


def exported(model: keras.Model, path: Path) -> list[np.ndarray]:
    """What a model computes of the digits once it was exported, folded."""
    kerasbn.export(model, path)
    return [keras.ops.convert_to_numpy(kerasbn.load(path)(digits()[0], training=False))]


def alone(folder: Path) -> State:
    """What one process makes of the same network with the whole of each batch."""
    model = network()
    images, classes = (np.concatenate(each) for each in zip(*batches(), strict=True))
    model.fit(images, classes, batch_size=BATCH, shuffle=False, verbose=0)
    trained = weights(model)
    kerasbn.calibrate(model, digits()[0])
    return {"trained": trained, "calibrated": weights(model), "exported": exported(model, folder / "alone.keras")}


def main(train: Callable[[int, list[str], Path], State]) -> None:
    """Have two processes train one network, train it in this one as well, and compare.

    Args:
        train: Gets the rank of a process, an address for each, and a folder. What comes of it on the first is compared.
    """
    if len(sys.argv) > 1:
        rank, addresses, folder = sys.argv[1:]
        state = train(int(rank), addresses.split(","), Path(folder))
        (Path(folder) / rank).write_bytes(pickle.dumps(state))
        return
    addresses = ",".join(_free_addresses())
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, sys.argv[0]]
        processes = [subprocess.Popen([*command, str(rank), addresses, folder]) for rank in range(PROCESSES)]
        expected = alone(Path(folder))
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit("A process failed, see above.")
        compare(pickle.loads((Path(folder) / "0").read_bytes()), expected)


def _free_addresses() -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(PROCESSES)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def compare(together: State, alone: State) -> None:
    """Show how far the two are from each other."""
    for name, arrays in together.items():
        most = max(float(np.max(np.abs(one - two))) for one, two in zip(arrays, alone[name], strict=True))
        print(f"{name}: {most:.0e} between several and one")
        if not most <= TOLERANCE:
            raise SystemExit(f"That is more than {TOLERANCE}.")
