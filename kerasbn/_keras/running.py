"""How layers and functions run: seen, told, without traces."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from keras.src.utils.module_utils import jax, tensorflow  # imported where an attribute of theirs is first asked for

from kerasbn._keras.calls import knows_training
from kerasbn._keras.processes import is_shared, own_copy, undistributed


@contextlib.contextmanager
def calls_through(
    layers: Iterable[keras.layers.Layer], instead: Callable[..., Any], method: str = "call"
) -> Iterator[None]:
    """Have `instead(call, layer, *args, **kwargs)` called in the place of each call of the layers, wherever from.

    Its first argument is what would be called. An attribute of the layer itself goes ahead of its class's method.
    """
    before = {layer: vars(layer).get(method) for layer in layers}
    for layer in before:
        object.__setattr__(layer, method, functools.partial(instead, getattr(layer, method), layer))
    try:
        yield
    finally:
        for layer, call in before.items():
            object.__delattr__(layer, method)
            if call is not None:
                object.__setattr__(layer, method, call)


@contextlib.contextmanager
def observed(layers: Iterable[keras.layers.Layer], note: Callable[..., None]) -> Iterator[None]:
    """Have `note(layer, *args, **kwargs)` called ahead of each call of the layers, wherever it comes from."""

    def noting(call: Callable[..., Any], layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        note(layer, *args, **kwargs)
        return call(*args, **kwargs)

    with calls_through(layers, noting):
        yield


@contextlib.contextmanager
def told(layers: Iterable[keras.layers.Layer], *, training: bool) -> Iterator[None]:
    """Have layers run as in training or as at inference, whatever those who call them say. `Layer._call_signature`."""

    def telling(call: Callable[..., Any], layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        names = list(layer._call_signature.parameters)
        if "training" in names[: len(args)]:
            at = names.index("training")
            return call(*args[:at], training, *args[at + 1 :], **kwargs)
        return call(*args, **{**kwargs, "training": training})

    with calls_through(filter(knows_training, layers), telling):
        yield


def without_scopes(layers: Iterable[keras.layers.Layer]) -> contextlib.AbstractContextManager[None]:
    """Have layers open no scope by their name when they are called. `Layer._open_name_scope`."""
    return calls_through(layers, lambda call, layer: contextlib.nullcontext(), "_open_name_scope")


@contextlib.contextmanager
def every_call_made() -> Iterator[None]:
    """Run functions that TensorFlow or JAX compile call by call inside, so that `observed` sees what they call.

    A function that was traced before does not come back to Python.
    """
    if keras.backend.backend() == "jax":
        with jax.disable_jit():
            yield
        return
    if keras.backend.backend() != "tensorflow":
        yield
        return
    before = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(before)


@contextlib.contextmanager
def aside(model: keras.Model) -> Iterator[None]:
    """Inside, a model runs in this process, without gradients, and what it writes to its variables is forgotten.

    Of variables that it shares with other processes it has copies of its own, so that each process may run it as often
    as it likes.

    Raises:
        ValueError: if this process has no more than a part of a variable.
    """
    with without_gradients():
        if not is_shared(model):
            with keras.StatelessScope():
                yield
            return
        with undistributed(), keras.StatelessScope([(each, own_copy(each)) for each in model.variables]):
            yield


def without_gradients() -> Any:
    """A context in which torch keeps nothing for gradients; the others keep it only where they are asked to."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def is_traced(tensor: Any) -> bool:
    """Whether a tensor stands for values that are not there yet, in a function that is being compiled."""
    match keras.backend.backend():
        case "tensorflow":
            return bool(tensorflow.is_symbolic_tensor(tensor))
        case "jax":
            return isinstance(tensor, jax.core.Tracer)
        case "torch":
            return not _has_storage(tensor)
    return False


def _has_storage(tensor: Any) -> bool:
    """Whether a tensor of torch lies in memory; one in a function that `torch.func` transforms does not."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True
