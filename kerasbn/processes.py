"""The processes that share a computation: how many there are, which one this is, and what they tell each other.

JAX           those of `jax.distributed`, which `keras.distribution.initialize` sets up
TensorFlow    the workers of the `MultiWorkerMirroredStrategy` that a model was made in
torch         those of the default group of `torch.distributed`

They tell each other arrays in float64, of which not a bit is lost on the way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import Array
from kerasbn.errors import OptionError, ProcessError, quoted

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that share a computation, this one among them.

    Attributes:
        count: How many there are.
        rank: Which one this is, from 0 on.
        send: Gives all processes the array of each one, behind each other, where all call it.
    """

    count: int
    rank: int
    send: Callable[[Array], Array]

    def gather(self, values: Array) -> Array:
        """The arrays of all processes, which have one shape, by rank.

        Raises:
            ProcessError: if another one is gone.
        """
        if self.count == 1:
            return values[np.newaxis]
        try:
            return self.send(values)
        except Exception as error:
            raise ProcessError(
                f"Process {self.rank} of {self.count} gets no answer from the others, of which one may have ended: "
                f"{quoted(error)}. Look at what that one said last, and start all of them again."
            ) from error

    def share(self, work: Callable[[], Array], size: int) -> Array:
        """What the work of each process comes to, by rank. Where that of one fails, it fails on all of them.

        Args:
            work: The work of this one, which comes to a row of numbers.
            size: How many.

        Raises:
            ProcessError: if the work of another one fails, with what it said, or another one is gone.
            Exception: what the work of this one raises.
        """
        try:
            done = work()
        except BaseException as error:  # an interrupt as well
            self._tell(f"{type(error).__name__}: {quoted(error)}".encode(), size)
            raise
        lengths, rows = np.split(self.gather(np.append(0.0, done)), [1], axis=1)
        if lengths.any():
            self._fail(lengths, self._told(b"", lengths))
        return rows

    def alike(self, work: Callable[[], T], told: Callable[[T], str]) -> T:
        """What some work comes to, which is the same on all processes, as far as it is told.

        Raises:
            ProcessError: if it is not, or the work of another one fails, or another one is gone.
            Exception: what the work of this one raises.
        """
        done: list[T] = []

        def digest() -> Array:
            done.append(work())
            return np.frombuffer(hashlib.sha256(told(done[0]).encode()).digest(), np.uint8).astype(np.float64)

        digests = self.share(digest, hashlib.sha256().digest_size)
        different = np.flatnonzero((digests != digests[0]).any(axis=1))
        if different.size:
            raise ProcessError(
                f"Process {different[0]} of {self.count} has another model than process 0, or other options. Make and "
                "load the same on all of them."
            )
        return done[0]

    def _tell(self, message: bytes, size: int) -> None:
        """Let the others know why this one fails, in the place of what it owes them."""
        lengths = self.gather(np.append(float(len(message)), np.zeros(size)))[:, :1]
        self._told(message, lengths)

    def _told(self, message: bytes, lengths: Array) -> Array:
        longest = int(lengths.max())
        return self.gather(np.frombuffer(message.ljust(longest, b"\0"), np.uint8).astype(np.float64))

    def _fail(self, lengths: Array, messages: Array) -> None:
        rank = int(np.flatnonzero(lengths)[0])
        message = messages[rank].astype(np.uint8).tobytes().rstrip(b"\0").decode(errors="replace")
        raise ProcessError(f"Process {rank} of {self.count} failed, and so all of them do: {message}")


def _alone(values: Array) -> Array:
    return values[np.newaxis]


ALONE = Processes(1, 0, _alone)
"""One process by itself."""


def processes_for(model: keras.Model, *, synchronized: bool) -> Processes:
    """The processes to measure the statistics of a model with: all of those that share its training, or this one.

    Raises:
        OptionError: if this one cannot go without the others, or should be one of several, and the model was not made
            for that.
    """
    if not isinstance(synchronized, bool):
        raise OptionError(f"Option synchronized is {synchronized!r}; it must be True or False.")
    if synchronized:
        return processes_of(model)
    if _keras.is_shared(model):
        raise OptionError(
            f"Several processes hold the weights of model {model.name!r} together, so none can give it statistics of "
            "its own data alone. Call this on all of them with synchronized=True, each with its share of the data; () "
            "is none."
        )
    return this_one(model)


def processes_holding(model: keras.Model) -> Processes:
    """The processes that hold the weights of a model together, or this one that has its own."""
    return group_of(model) if _keras.is_shared(model) else this_one(model)


def this_one(model: keras.Model) -> Processes:
    """This process. Where others train copies of the model, a `UserWarning` says that they have no part in it."""
    if keras.backend.backend() != "jax" and (found := group_of(model)).count > 1:
        warnings.warn(
            f"This is process {found.rank} of {found.count}, and the statistics are those of its own data. "
            "kerasbn.calibrate with synchronized=True, called on all of them, gives those of all data.",
            stacklevel=5,
        )
    return ALONE


def processes_of(model: keras.Model) -> Processes:
    """The processes that share the training of a model, as many as there are to be.

    Raises:
        OptionError: if there are several of TensorFlow's, and the model was not made for them.
    """
    found = group_of(model)
    if keras.backend.backend() == "tensorflow" and found.count == 1 and (workers := len(_tasks(_configured()))) > 1:
        raise OptionError(
            f"TF_CONFIG tells of {workers} workers, but model {model.name!r} was made outside of the scope of a "
            "tf.distribute.MultiWorkerMirroredStrategy. Make it inside: with strategy.scope()."
        )
    return found


def group_of(model: keras.Model) -> Processes:
    """The processes that share the training of a model as it was made."""
    match keras.backend.backend():
        case "jax":
            return _of_jax()
        case "tensorflow":
            return _of_tensorflow(model)
        case "torch":
            return _of_torch()
    return ALONE


def _of_jax() -> Processes:
    import jax
    from jax.experimental import multihost_utils

    def send(values: Array) -> Array:
        words = values.view(np.uint32)  # JAX would make it float32
        return np.asarray(multihost_utils.process_allgather(words)).view(np.float64)

    return Processes(jax.process_count(), jax.process_index(), send)


def _of_tensorflow(model: keras.Model) -> Processes:
    import tensorflow as tf

    strategy = getattr(model, "distribute_strategy", None)
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return ALONE
    resolver = strategy.cluster_resolver
    tasks = _tasks(resolver)

    def send(values: Array) -> Array:
        row = strategy.experimental_distribute_values_from_function(lambda replica: tf.constant(values[np.newaxis]))
        local = len(strategy.experimental_local_results(row))
        gathered: Array = strategy.gather(row, axis=0).numpy()[::local]
        return gathered

    return Processes(len(tasks), tasks.index((resolver.task_type, resolver.task_id)), send)


def _configured() -> Any:
    """What the environment tells TensorFlow of a cluster."""
    import tensorflow as tf

    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _tasks(resolver: Any) -> list[tuple[str, int]]:
    """The workers of a cluster, in the order of their ranks."""
    cluster = resolver.cluster_spec().as_dict()
    return [(kind, index) for kind in ("chief", "worker") for index in range(len(cluster.get(kind, ())))]


def _of_torch() -> Processes:
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE

    def send(values: Array) -> Array:
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        row = torch.from_numpy(values.copy()).to(device)
        rows: list[Any] = [torch.empty_like(row) for _ in range(distributed.get_world_size())]
        distributed.all_gather(rows, row)
        return np.stack([each.cpu().numpy() for each in rows])

    return Processes(distributed.get_world_size(), distributed.get_rank(), send)
