"""Many steps of training in one compiled function, under TensorFlow and under JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from reproduction.data import Array

Examples = Callable[[Any], tuple[Any, Any]]
"""The inputs and labels of a batch, from three whole numbers for each, that say what it is."""
Scores = Callable[[Any], Any]
"""The score of each of some examples, by their numbers."""
Engine = tuple[Callable[[Array], None], Callable[[Array], Array]]
"""What trains a model by many batches, and what evaluates it as it is."""


def engine(model: keras.Model, examples: Examples, scores: Scores, xla: bool) -> Engine:
    """What trains and evaluates, a step being Keras's own `train_step`.

    Args:
        model: The compiled model, without metrics.
        examples: What a batch consists of.
        scores: What evaluates `model`.
        xla: Whether XLA compiles the steps. Under JAX it always does.
    """
    model.optimizer.build(model.trainable_variables)
    return ENGINES[keras.backend.backend()](model, examples, scores, xla)


def _tensorflow(model: keras.Model, examples: Examples, scores: Scores, xla: bool) -> Engine:
    import tensorflow as tf

    step = tf.function(model.train_step, jit_compile=True) if xla else model.train_step

    @tf.function
    def train(batches: tf.Tensor) -> None:
        for batch in batches:
            step(examples(batch))

    evaluate = tf.function(scores, jit_compile=xla)
    return lambda batches: train(tf.constant(batches)), lambda rows: evaluate(tf.constant(rows)).numpy()


def _jax(model: keras.Model, examples: Examples, scores: Scores, xla: bool) -> Engine:
    import jax
    import numpy as np

    nothing = [keras.ops.zeros((1, *output.shape[1:])) for output in model.outputs]
    labels = examples(np.zeros((1, 3), "int32"))[1]
    model.compute_loss(
        None, labels, nothing if len(nothing) > 1 else nothing[0]
    )  # what tracks losses gets its variables
    groups = (model.trainable_variables, model.non_trainable_variables)
    groups = (*groups, model.optimizer.variables, model.metrics_variables)

    @jax.jit
    def run(state: Any, batches: Any) -> Any:
        return jax.lax.scan(lambda state, batch: (model.train_step(state, examples(batch))[1], None), state, batches)[0]

    @jax.jit
    def evaluate(state: Any, rows: Any) -> Any:
        pairs = [pair for group, values in zip(groups, state, strict=True) for pair in zip(group, values, strict=True)]
        with keras.StatelessScope(pairs):
            return scores(rows)

    def state() -> Any:
        return tuple([variable.value for variable in group] for group in groups)

    def train(batches: Array) -> None:
        for group, values in zip(groups, run(state(), batches), strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    return train, lambda rows: np.asarray(evaluate(state(), rows))


ENGINES: Mapping[str, Callable[[keras.Model, Examples, Scores, bool], Engine]] = {
    "tensorflow": _tensorflow,
    "jax": _jax,
}
