"""Run by test_processes.py: one of two processes that calibrate a model together."""

import contextlib
import json
import os
import pickle
import signal
import sys
import warnings

RANK, PORTS, OUTPUT = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3]
ADDRESSES = [f"127.0.0.1:{port}" for port in PORTS]
TASK = {"cluster": {"worker": ADDRESSES}, "task": {"type": "worker", "index": RANK}}
os.environ["TF_CONFIG"] = json.dumps(TASK)

import keras  # noqa: E402
import numpy as np  # noqa: E402

import kerasbn  # noqa: E402
from kerasbn.processes import processes_of  # noqa: E402
from tests.statistics.processes import CASES, FEEDS, SAMPLE, UNEQUAL, network, share  # noqa: E402


def joined():
    """Join the other process, as the engine of the backend does; the scope to make a model in."""
    match keras.backend.backend():
        case "jax":
            keras.distribution.initialize(ADDRESSES[0], 2, RANK)
            keras.distribution.set_distribution(keras.distribution.DataParallel())
        case "tensorflow":
            import tensorflow as tf

            return tf.distribute.MultiWorkerMirroredStrategy().scope
        case "torch":
            import torch

            address = f"tcp://{ADDRESSES[0]}"
            torch.distributed.init_process_group("gloo", init_method=address, rank=RANK, world_size=2)
    return contextlib.nullcontext


class Ends(keras.layers.Layer):
    """Ends the process when it is called."""

    armed = False

    def call(self, inputs):
        """Do so."""
        if self.armed:
            os.kill(os.getpid(), signal.SIGKILL)
        return inputs


def outcome(model, data, **options):
    """What comes of a calibration: the statistics afterwards, the error, warnings."""
    error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            kerasbn.calibrate(model, data, **options)
        except Exception as raised:
            error = (type(raised).__name__, str(raised))
    said = [str(each.message) for each in caught if "synchronized" in str(each.message)]
    return {"statistics": [weight.numpy() for weight in model.non_trainable_variables], "error": error, "said": said}


def fail(batches):
    """Batches, and then an error."""
    yield from batches
    raise RuntimeError("the disk is full")


def verb(name, *arguments, **options):
    """What a verb makes of a model: its weights, or what it says; the error if it fails."""
    try:
        made = getattr(kerasbn.layers if name == "to_keras" else kerasbn, name)(*arguments, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return [np.array(weight.numpy()) for weight in made.variables] if isinstance(made, keras.Model) else "done"


def verbs():
    """What all verbs make of a model that the processes train together."""
    sample, target = share(UNEQUAL, RANK), f"{OUTPUT}/exported.keras"
    yield "rewrite", verb("rewrite", plain)
    yield "rewrite on data", verb("rewrite", plain, data=sample if keras.backend.backend() == "jax" else SAMPLE)
    grouped = {"existing": "replace", "norm": keras.layers.GroupNormalization(2), "data": SAMPLE}
    yield "rewrite that fits", verb("rewrite", plain_rewritten, **grouped)
    yield "fold", verb("fold", plain_rewritten)
    yield "to_keras", verb("to_keras", plain_rewritten)
    yield "average", verb("average", [plain_rewritten, plain_rewritten], sample, synchronized=True)
    yield "diagnose", verb("diagnose", plain_rewritten, SAMPLE)
    yield "variance_shift", verb("variance_shift", plain_rewritten, SAMPLE)
    batch = SAMPLE[:64], SAMPLE[:64, :2]
    yield "find_learning_rate", verb("find_learning_rate", plain_rewritten, batch, steps=10, highest=0.1)
    yield "export", verb("export", plain_rewritten, target) if RANK == 0 else "done"
    processes_of(model).gather(np.zeros(1))  # not ahead of the first one
    yield "export of another", verb("export", plain_rewritten, target) if RANK == 1 else "done"
    plain_rewritten.save(f"{OUTPUT}/{RANK}.keras")
    with scope():
        yield "load", verb("load", f"{OUTPUT}/{RANK}.keras")


scope = joined()
with scope():
    model = network(Ends(name="ends"))
    keras.utils.set_random_seed(0)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])
    plain.compile(keras.optimizers.Adam(), "mse")
plain_rewritten = kerasbn.rewrite(plain)
before = [np.array(weight.numpy()) for weight in model.non_trainable_variables]


def restore():
    """Give the model the statistics that it had."""
    for weight, value in zip(model.non_trainable_variables, before, strict=True):
        weight.assign(value)


found = {}
for name, (share_of, options) in CASES.items():
    found[name] = outcome(model, share(share_of, RANK), synchronized=True, **options)
    restore()
for name, feed in FEEDS.items():
    found[name] = outcome(model, feed(share(UNEQUAL, RANK)), synchronized=True)
    restore()
found["verbs"] = dict(verbs())
found["fails"] = outcome(model, fail(iter([SAMPLE])) if RANK else SAMPLE, synchronized=True)
found["nobody"] = outcome(model, (), synchronized=True)
found["others"] = outcome(model, SAMPLE, synchronized=True, blend=0.5 if RANK else 1.0)
found["alone"] = outcome(model, SAMPLE)
restore()
with open(f"{OUTPUT}/{RANK}.pickle", "wb") as file:
    pickle.dump(found, file)
Ends.armed = RANK == 1
found["ends"] = outcome(model, SAMPLE, synchronized=True)
with open(f"{OUTPUT}/{RANK}.pickle", "wb") as file:
    pickle.dump(found, file)
os._exit(0)  # the engine would wait for the other one
