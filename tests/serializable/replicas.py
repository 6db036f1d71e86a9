"""Run by test_synchronized.py: one step on two replicas, which TensorFlow sets up as it starts."""

import json
import sys

import numpy as np
import tensorflow as tf

import kerasbn.layers

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def run(case):
    x, dy, mask = (None if case[name] is None else np.array(case[name]) for name in ("x", "dy", "mask"))

    def of_replica(values, dtype):
        if values is None:
            return None
        halves = [tf.constant(half, dtype) for half in np.array_split(values, case["split"])]
        return strategy.experimental_distribute_values_from_function(
            lambda context: halves[context.replica_id_in_sync_group]
        )

    with strategy.scope():
        layer = kerasbn.layers.BatchNormalization(**case["arguments"])
        layer.build(x.shape)
        for name in ("gamma", "beta"):
            getattr(layer, name).assign(case[name])

    @tf.function
    def step(x, dy, mask):
        def one(x, dy, mask):
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x, training=True, mask=mask)
            sources = [x, layer.gamma.value, layer.beta.value]
            return outputs, *tape.gradient(outputs, sources, output_gradients=dy)

        return strategy.run(one, args=(x, dy, mask))

    dtype = layer.compute_dtype
    results = step(of_replica(x, dtype), of_replica(dy, dtype), of_replica(mask, "bool"))
    outputs, dx, dgamma, dbeta = (
        [part.numpy() for part in strategy.experimental_local_results(each)] for each in results
    )
    return {
        "outputs": np.concatenate(outputs).tolist(),
        "dx": np.concatenate(dx).tolist(),
        "dgamma": sum(dgamma).tolist(),
        "dbeta": sum(dbeta).tolist(),
        **{variable.name: variable.numpy().tolist() for variable in layer.non_trainable_variables},
    }


json.dump([run(case) for case in json.load(sys.stdin)], sys.stdout)
