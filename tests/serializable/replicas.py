"""Run by test_synchronized.py: one step on two replicas, of the backend that Keras runs on.

TensorFlow and JAX set up two devices as they start, torch has two processes.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile

import keras
import numpy as np

from kerasbn.layers import BatchNormalization


def made(case):
    """The layer of a case, and its inputs, gradients of outputs, and mask, as arrays or None."""
    layer = BatchNormalization(**case["arguments"])
    given = [None if case[name] is None else np.array(case[name]) for name in ("x", "dy", "mask")]
    layer.build(given[0].shape)
    for name in ("gamma", "beta"):
        getattr(layer, name).assign(case[name])
    return layer, given


def parts(values, case, dtype):
    """The shares of the replicas."""
    return None if values is None else np.array_split(values.astype(dtype), case["split"])


class Counting:
    """A function that counts its calls, in the place of another."""

    def __init__(self, owner, name):
        self.calls, self.function = 0, getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: self(*args, **kwargs))

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.function(*args, **kwargs)


def results(outputs, dx, dgamma, dbeta, all_reduces, statistics):
    """What the replicas have found, joined: gradients of gamma and beta are added up, statistics are the first's."""
    return {
        "outputs": np.concatenate(outputs).tolist(),
        "dx": np.concatenate(dx).tolist(),
        "dgamma": np.sum(dgamma, axis=0).tolist(),
        "dbeta": np.sum(dbeta, axis=0).tolist(),
        "all_reduces": all_reduces,
        **{name: np.array(value).tolist() for name, value in statistics.items()},
    }


def on_tensorflow(cases):
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    counting = Counting(tf.distribute.ReplicaContext, "all_reduce")

    def of_replica(values):
        if values is None:
            return None
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[context.replica_id_in_sync_group])
        )

    def run(case):
        with strategy.scope():
            layer, (x, dy, mask) = made(case)

        @tf.function
        def step(x, dy, mask):
            def one(x, dy, mask):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    outputs = layer(x, training=True, mask=mask)
                sources = [x, layer.gamma.value, layer.beta.value]
                return outputs, *tape.gradient(outputs, sources, output_gradients=dy)

            return strategy.run(one, args=(x, dy, mask))

        dtype, before = layer.compute_dtype, counting.calls
        shares = (of_replica(parts(*each)) for each in ((x, case, dtype), (dy, case, dtype), (mask, case, "bool")))
        found = ([part.numpy() for part in strategy.experimental_local_results(each)] for each in step(*shares))
        statistics = {each.name: each.numpy() for each in layer.non_trainable_variables}
        return results(*found, (counting.calls - before) // 2, statistics)

    return [run(case) for case in cases]


def on_jax(cases):
    import jax
    from jax.sharding import Mesh, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole, shared = PartitionSpec(), PartitionSpec("data")
    shard_map = getattr(jax, "shard_map", None) or importlib.import_module("jax.experimental.shard_map").shard_map

    def run(case):
        layer, (x, dy, mask) = made(case)

        def step(trainable, others, x, dy, mask):
            def call(trainable, x):
                return layer.stateless_call(trainable, others, x, training=True, mask=mask)

            outputs, derivative, state = jax.vjp(call, trainable, x, has_aux=True)
            gradients, dx = derivative(dy)
            return outputs, dx, *gradients, state if layer.synchronized else [each[None] for each in state]

        state = whole if layer.synchronized else shared
        step = shard_map(
            step,
            mesh=mesh,
            in_specs=(whole, whole, shared, shared, shared),
            out_specs=(shared, shared, whole, whole, state),
        )
        variables = [
            [each.value for each in some] for some in (layer.trainable_variables, layer.non_trainable_variables)
        ]
        given = (*variables, x.astype("float32"), dy.astype("float32"), mask)
        compiled = jax.jit(step).lower(*given).compile()
        *found, state = compiled(*given)
        names = [each.name for each in layer.non_trainable_variables]
        all_reduces = compiled.as_text().count(" all-reduce(")
        return results(*([each] for each in found), all_reduces, dict(zip(names, state, strict=True)))

    return [run(case) for case in cases]


def on_torch(cases):
    import torch

    rank = int(os.environ.setdefault("RANK", "0"))
    if rank == 0:
        os.environ["MEETING"] = tempfile.mkdtemp()
        other = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, text=True, env={**os.environ, "RANK": "1"}
        )
        json.dump(cases, other.stdin)
        other.stdin.close()
    torch.distributed.init_process_group("gloo", f"file://{os.environ['MEETING']}/file", rank=rank, world_size=2)

    counting = Counting(torch.distributed, "all_reduce")

    def run(case):
        before = counting.calls
        layer, (x, dy, mask) = made(case)
        x, dy, mask = (
            each and torch.tensor(each[rank])
            for each in (parts(x, case, "float32"), parts(dy, case, "float32"), parts(mask, case, "bool"))
        )
        x.requires_grad_()
        outputs = layer(x, training=True, mask=mask)
        gradients = torch.autograd.grad(outputs, [x, layer.gamma.value, layer.beta.value], grad_outputs=dy)
        found, all_reduces = [None, None], counting.calls - before
        torch.distributed.all_gather_object(found, [each.detach().numpy() for each in (outputs, *gradients)])
        statistics = {each.name: each.numpy() for each in layer.non_trainable_variables}
        return results(*zip(*found, strict=True), all_reduces, statistics)

    done = [run(case) for case in cases]
    if rank == 0:
        assert other.wait(60) == 0
    else:
        sys.exit()
    return done


if __name__ == "__main__":
    on_backend = {"tensorflow": on_tensorflow, "jax": on_jax, "torch": on_torch}[keras.backend.backend()]
    json.dump(on_backend(json.load(sys.stdin)), sys.stdout)
