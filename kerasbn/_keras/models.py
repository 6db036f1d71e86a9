"""Models: their classes, graphs and compiled state."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.models.functional import Functional, functional_like_constructor

from kerasbn._keras.layers import sublayers

_BEHAVIOUR = (
    *("call", "__call__", "compile", "fit", "train_step", "test_step", "predict_step"),
    *("compute_loss", "compute_metrics", "make_train_function", "make_test_function", "make_predict_function"),
)


def own_behaviour(model: keras.Model) -> list[str]:
    """The methods that a subclass of a Keras model puts in the place of Keras's."""
    base = next(kind for kind in (keras.Sequential, Functional, keras.Model) if isinstance(model, kind))
    return [name for name in _BEHAVIOUR if getattr(type(model), name) is not getattr(base, name)]


def own_attributes(layer: keras.layers.Layer) -> dict[str, Any]:
    """What a layer or model was given as attributes, by its class or from outside, besides what Keras keeps there."""
    keras_own = _attributes_of_models() if isinstance(layer, keras.Model) else _attributes_of_layers()
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in keras_own and not name.startswith(("_self_", "_eval_epoch", "_obj_", "_keras_api"))
    }


@functools.cache
def _attributes_of_models() -> frozenset[str]:
    given = keras.Input((1,))
    of_some = {"history", "_compile_config", "_compiled_trainable_state"}
    return frozenset(vars(keras.Model()).keys() | vars(keras.Model(given, given)) | of_some) | {*TRAINING_ATTRIBUTES}


@functools.cache
def _attributes_of_layers() -> frozenset[str]:
    return frozenset(vars(keras.layers.Layer()).keys() | {"_build_shapes_dict"}) - {"supports_masking"}


def bare_model_like(model: keras.Model, functional: keras.Model | None) -> keras.Model:
    """A model of the same class that did not go through the `__init__` of that class.

    Args:
        model: The model.
        functional: Where the class is one of functional models, the one whose graph it gets.
    """
    twin = keras.Model.__new__(type(model))
    if functional is None:
        keras.Model.__init__(twin, name=model.name, dtype=model.dtype_policy)
        twin.built = model.built
        twin._build_shapes_dict = model._build_shapes_dict
    else:
        Functional.__init__(twin, functional._inputs_struct, functional._outputs_struct, name=model.name)
        twin.output_names = functional.output_names
        twin.dtype_policy = model.dtype_policy
    twin._auto_config = None  # what `__init__` was called with would make another model
    return twin


def compile_as_keras_does(model: keras.Model, source: keras.Model, **arguments: Any) -> None:
    """Compile a model as another one, past a `compile` that its class puts in the place of Keras's.

    A subclassed model has no `output_names`, so there are none in its logs, and shall be none in those of what was made
    of it. `Trainer.compile` reads them once, for `_compile_loss` and `_compile_metrics`.
    """
    logged = [each for each in (source._compile_loss, source._compile_metrics) if each is not None]
    named = all(each.output_names is not None for each in logged)
    names = None if named else vars(model).pop("output_names", None)
    keras.Model.compile(model, **arguments)
    if names is not None:
        vars(model)["output_names"] = names


def has_call(model: keras.Model) -> bool:
    """Whether a model can be called; one that only trains, as a GAN does, may not."""
    return type(model).call is not keras.Model.call


def is_graph(model: keras.Model) -> bool:
    """Whether calling a model runs the graph that Keras keeps for it, and nothing else."""
    return functional_of(model) is not None and "call" not in own_behaviour(model)


def is_constructed_from_graph(kind: type[keras.Model]) -> bool:
    """Whether a class of models is made of what makes up its graph, so that its instances save and load.

    That is as `kind(inputs, outputs, name=...)`, or as `kind(layers, name=...)` for a Sequential.
    """
    if not issubclass(kind, keras.Sequential):
        return bool(functional_like_constructor(kind))
    parameters = inspect.signature(kind.__init__).parameters
    named = "name" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return "layers" in parameters and named


def took_a_batch(model: Any) -> bool:
    """Whether a Sequential was given no input, so that it took the shape of the first batch, size included.

    Where a layer keeps states between batches, the size is that of these.
    """
    if not (isinstance(model, keras.Sequential) and isinstance(model._layers[0], keras.layers.InputLayer)):
        return False
    if any(getattr(layer, "stateful", False) for layer in sublayers(model)):
        return False
    arguments = model._layers[0]._auto_config  # those of its constructor, None where a tensor is among them
    if arguments is None:
        return False
    given = {name for name, value in arguments.config.items() if value is not None and value is not False}
    return given == {"batch_shape", "dtype"}  # as Sequential.build makes it


def functional_of(model: keras.Model) -> Functional | None:
    """The graph that Keras keeps for a Sequential or Functional model, `None` where it has none.

    A Sequential that was never built, or whose input is a structure, has none.
    """
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if isinstance(model, Functional) else None


def built_shapes(model: keras.Model) -> Any:
    """The shapes of a subclassed model's inputs, in their structure. `Layer._build_shapes_dict`."""
    return next(iter((model._build_shapes_dict or {}).values()), None) if model.built else None


def input_structure(functional: Functional) -> Any:
    return functional._inputs_struct


def output_structure(functional: Functional) -> Any:
    return functional._outputs_struct


def forget_compiled_functions(model: keras.Model) -> None:
    """Have a model compile what it trains and runs with again, so that changes to its layers take effect."""
    for name in ("train_function", "test_function", "predict_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)


EXECUTION_ATTRIBUTES = ("run_eagerly", "jit_compile", "steps_per_execution")
"""What `compile` sets and a user may set to something else afterwards."""


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The arguments of the last `compile`, live objects as they were given. `Trainer._compile_config`."""
    return dict(model._compile_config.config)


@contextlib.contextmanager
def told_of_its_optimizer(model: keras.Model) -> Iterator[None]:
    """Have a model tell inside of the optimizer that it was compiled with, which Keras drops when it writes `.h5`."""
    told = getattr(model, "_compile_config", None)
    if told is None or "optimizer" in told.config or getattr(model, "optimizer", None) is None:
        yield
        return
    before = told.config
    told.config = {"optimizer": model.optimizer, **before}
    try:
        yield
    finally:
        told.config = before


def another_around_its_function(metric: keras.metrics.Metric) -> keras.metrics.Metric | None:
    """A metric of its own state around the very function that another one wraps; `None` if that wraps none.

    Serialized and back, a function that is not registered would be lost.
    """
    kind = type(metric)
    if getattr(kind, "get_config", None) is not keras.metrics.MeanMetricWrapper.get_config:
        return None
    return kind(fn=metric._fn, **keras.metrics.Mean.get_config(metric), **metric._fn_kwargs)


TRAINING_ATTRIBUTES = ("optimizer", "train_function", "test_function", "stop_training", "steps_per_execution")
"""What training a model changes about it besides variables."""


def standardized_inputs(functional: Functional, inputs: Any) -> list[Any]:
    """A model's inputs as its graph takes them: tensors, flat, of the right rank and dtype; `None` for one left out.

    Raises:
        ValueError: if they do not fit.
    """

    def tensor_of(leaf: Any) -> Any:
        return None if leaf is None else keras.ops.convert_to_tensor(leaf)

    return list(functional._standardize_inputs(keras.tree.map_structure(tensor_of, inputs)))


def list_parameters(model: keras.Model) -> None:
    """List a model's parameters for its `state_dict` as a torch module, after `deferred_variables`.

    The torch backend does that when a layer is built, but not in such a context. `TorchLayer._track_variables`.
    """
    if keras.backend.backend() == "torch":
        for layer in sublayers(model):
            for module in filter(None, (layer, functional_of(layer))):
                if not hasattr(module, "_torch_params"):
                    module._track_variables()
