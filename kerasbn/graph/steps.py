"""`TimeDistributed` around a network, as a graph that calls the network once, on all steps together.

At inference that is what the wrapper does, one step after the other. It is for looking at: a model is
built from it with the wrapper around the network, as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.graph.model import CallSite, Graph, Operation, Value


class EachStep(keras.Operation):  # type: ignore[misc]
    """Lays the steps along the batch: `(batch, steps, ...)` becomes `(batch * steps, ...)`."""

    def call(self, inputs: Any) -> Any:
        """Reshape an array."""
        return keras.ops.reshape(inputs, (-1, *keras.ops.shape(inputs)[2:]))


class AllSteps(keras.Operation):  # type: ignore[misc]
    """Takes the steps out of the batch again.

    Args:
        steps: How many there are.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def call(self, inputs: Any) -> Any:
        """Reshape an array."""
        return keras.ops.reshape(inputs, (-1, self.steps, *keras.ops.shape(inputs)[1:]))


def goes_along_steps(operation: Any) -> bool:
    """Whether an operation is a `TimeDistributed` around a network, so that there is a graph of it.

    The number of steps has to be known, the same at all calls, and none masked.
    """
    if type(operation) is not keras.layers.TimeDistributed:
        return False
    is_own = _keras.is_keras_own(type(operation.layer))
    holds_network = isinstance(operation.layer, keras.Model) or (not is_own and len(_keras.sublayers(operation)) > 2)
    calls = [entering for entering, _ in _keras.tensors_of_calls(operation)]
    steps = {entering[0].shape[1] for entering in calls}
    masked = any(len(entering) > 1 or _keras.mask_of(entering[0]) is not None for entering in calls)
    return holds_network and not masked and len(steps) == 1 and None not in steps


def graph_of_steps(
    wrapper: keras.layers.TimeDistributed, path: str, operation_at: Callable[[Any, str], Operation]
) -> Graph:
    """The graph of a `TimeDistributed` for which `goes_along_steps` holds.

    Args:
        wrapper: The layer.
        path: Its path.
        operation_at: Gives the operation for the wrapped layer, read if it is a model, at a path.
    """
    (before,), (after,) = _keras.tensors_of_calls(wrapper)[0]
    given = keras.layers.InputLayer(batch_shape=before.shape, dtype=before.dtype)
    entering, leaving = Value(given.output), Value(after)
    step = Value(_of_one_step(before, wrapper.compute_dtype))
    result = Value(_of_one_step(after, after.dtype))
    inner = f"{path}/{wrapper.layer.name}"

    def site(operation: Any, path: str, inputs: tuple[Value, ...], output: Value) -> CallSite:
        return CallSite(operation, path, 0, args=inputs, kwargs={}, outputs=(output,))

    sites = (
        site(given, f"{path}/(steps)", (), entering),
        site(EachStep(), f"{path}/(each step)", (entering,), step),
        site(operation_at(wrapper.layer, inner), inner, (step,), result),
        site(AllSteps(before.shape[1]), f"{path}/(all steps)", (result,), leaving),
    )
    return Graph(wrapper, entering, leaving, sites)


def _of_one_step(tensor: keras.KerasTensor, dtype: str) -> keras.KerasTensor:
    batch, _, *shape = tensor.shape
    return keras.KerasTensor((batch, *shape), dtype)


def on_each_step(graph: Graph) -> CallSite | None:
    """The call of the network in a graph of steps; `None` if the graph is another one."""
    if not isinstance(graph.model, keras.layers.TimeDistributed):
        return None
    return next(
        site for site in graph.sites if not site.is_input and not isinstance(site.operation, EachStep | AllSteps)
    )
