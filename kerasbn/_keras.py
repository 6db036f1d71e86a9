"""Keras's private attributes, touched here and nowhere else.

Written against Keras 3.14 and 3.15. Each function says what it relies on.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Number
from typing import Any, NamedTuple

import keras
import numpy as np
from keras.src.applications import convnext, inception_resnet_v2
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.backend import rnn as rnn
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.models.functional import Functional as Functional
from keras.src.models.functional import functional_like_constructor
from keras.src.ops.node import Node
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers.data_adapters import get_data_adapter
from keras.src.utils.module_utils import jax, tensorflow  # imported where an attribute of theirs is first asked for


class Call(NamedTuple):
    """A call that Keras recorded: what was called, with what, and what came out."""

    operation: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[keras.KerasTensor]


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


def compile_as_keras_does(model: keras.Model, **arguments: Any) -> None:
    """Compile a model, past a `compile` that its class puts in the place of Keras's."""
    keras.Model.compile(model, **arguments)


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


def recorded_calls(functional: Functional) -> list[Call]:
    """The calls of a graph, each after those that it depends on. `Function._nodes_by_depth`."""
    nodes = [
        node
        for depth in sorted(functional._nodes_by_depth, reverse=True)
        for node in functional._nodes_by_depth[depth]
        if not node.is_input
    ]
    return [Call(node.operation, node.arguments.args, node.arguments.kwargs, node.outputs) for node in nodes]


def calls_between(inputs: Iterable[keras.KerasTensor], outputs: Iterable[keras.KerasTensor]) -> list[Call]:
    """The calls that lead from symbolic inputs to outputs, each after those that it depends on.

    By `KerasTensor._keras_history`, for as long as nothing of it was forgotten.
    """
    entering = {id(tensor) for tensor in inputs}
    found: dict[int, Call] = {}
    waiting = [(tensor, False) for tensor in reversed(list(outputs))]
    while waiting:
        tensor, ready = waiting.pop()
        if id(tensor) in entering:
            continue
        operation, index, _ = tensor._keras_history
        node = operation._inbound_nodes[index]
        if ready:
            found.setdefault(id(node), Call(operation, node.arguments.args, node.arguments.kwargs, node.outputs))
        elif id(node) not in found:
            waiting.append((tensor, True))
            waiting += [(each, False) for each in reversed(node.input_tensors)]
    return list(found.values())


@contextlib.contextmanager
def forgotten_calls(layers: Iterable[keras.layers.Layer], *, if_done: bool = True) -> Iterator[None]:
    """Symbolic calls of these layers made inside leave no record: `Operation._inbound_nodes`, `_outbound_nodes`.

    Models made of them run on, but cannot be saved any more.

    Args:
        layers: The layers.
        if_done: Whether that goes for what is done without an error, too. Defaults to `True`.
    """
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    forget = True
    try:
        yield
        forget = if_done
    finally:
        for layer, inbound, outbound in before if forget else ():
            del layer._inbound_nodes[inbound:]
            del layer._outbound_nodes[outbound:]


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that a layer holds by itself, not in a layer inside it."""
    inside = {id(variable) for each in sublayers(layer)[1:] for variable in each.variables}
    return [variable for variable in layer.variables if id(variable) not in inside]


def carry_rematerialization(source: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Have a layer keep or recompute its activations as another does: a `RematScope`'s mark, `Layer._remat_mode`."""
    layer._remat_mode = source._remat_mode


def is_lookup(layer: keras.layers.Layer) -> bool:
    """Whether a layer is one of Keras's that look up a vocabulary, which it needs before it can be called."""
    return is_keras_own(type(layer)) and hasattr(type(layer), "save_assets")


def carry_weights_of_terms(source: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Give a lookup what another one multiplies by in tf-idf, which is in no Keras variable."""
    weights: dict[str, Any] = {}
    source.save_own_variables(weights)
    layer.load_own_variables(weights)


def shares(layer: keras.layers.Layer, own: keras.Variable, other: keras.Variable) -> bool:
    """Have a built layer use another variable in the place of one of its own; whether that could be done.

    By the attributes of the layer and of what it holds, among them Keras's lists `_trainable_variables`.
    """
    for holder in sublayers(layer):
        for name, value in list(vars(holder).items()):
            if value is own:
                vars(holder)[name] = other
            elif isinstance(value, list):
                value[:] = [other if each is own else each for each in value]
    return all(variable is not own for variable in layer.variables)


def is_keras_own(kind: type) -> bool:
    """Whether a class is one of Keras's."""
    return kind.__module__.partition(".")[0] == "keras"


def call_order(tensor: keras.KerasTensor) -> int:
    """Which of its operation's calls a tensor came from. `KerasTensor._keras_history`."""
    return int(tensor._keras_history.node_index)


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """The operation that a tensor came from. `KerasTensor._keras_history`."""
    return tensor._keras_history.operation


def tensors_of_calls(operation: keras.Operation) -> list[tuple[list[keras.KerasTensor], list[keras.KerasTensor]]]:
    """The inputs and the outputs of an operation's symbolic calls: `Operation._inbound_nodes`."""
    return [(node.input_tensors, node.outputs) for node in operation._inbound_nodes]


def input_layer_of(tensor: keras.KerasTensor) -> keras.layers.InputLayer:
    return tensor._keras_history.operation


def input_structure(functional: Functional) -> Any:
    return functional._inputs_struct


def output_structure(functional: Functional) -> Any:
    return functional._outputs_struct


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all that it holds, itself first."""
    return list(layer._flatten_layers())


def paths_inside(layer: keras.layers.Layer) -> dict[keras.layers.Layer, str]:
    """The path of a layer and of all that it holds, in that layer: `"forward_gru/gru_cell"`, its own is `""`.

    Of several the shortest. No two have one path: a further one of a name gets a number. By `Layer._layers`.
    """
    found = {layer: ""}
    taken = {""}
    waiting = [(layer, "")]
    for holder, prefix in waiting:  # which grows on the way
        for each in holder._layers:
            if each not in found:
                names = itertools.chain([each.name], (f"{each.name}_{number}" for number in itertools.count(1)))
                path = next(path for path in map(prefix.__add__, names) if path not in taken)
                found[each] = path
                taken.add(path)
                waiting.append((each, f"{path}/"))
    return found


def wire(operation: keras.Operation, args: Any, kwargs: Any, specs: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
    """Record a call whose outcome is known, without making it.

    What `keras.src.models.functional.clone_graph_nodes` does for models of intermediate tensors.
    """
    outputs = [
        keras.KerasTensor(spec.shape, dtype=spec.dtype, sparse=spec.sparse, ragged=spec.ragged) for spec in specs
    ]
    Node(operation, call_args=args, call_kwargs=kwargs, outputs=outputs)
    return outputs


def detached(operation: keras.Operation) -> keras.Operation:
    """A copy of an operation without weights, with no call recorded yet.

    Not by `copy.copy`: Keras makes that a whole save and load, which not every operation survives.
    """
    twin = object.__new__(type(operation))
    twin.__dict__.update(operation.__dict__)
    twin._inbound_nodes = []
    twin._outbound_nodes = []
    return twin


def operation_name(operation: keras.Operation) -> str | None:
    """The name of one of Keras's own operations, `"HardSigmoid"`; `None` for layers and others' operations."""
    kind = type(operation)
    if isinstance(operation, keras.layers.Layer) or not kind.__module__.startswith(
        ("keras.src.ops.", "keras.src.activations.")
    ):
        return None
    return kind.__name__


def set_own_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Set a layer's or model's flag without those of its weights and layers, as `Layer.trainable` would."""
    layer._trainable = value


def set_class(layer: keras.layers.Layer, kind: type[keras.layers.Layer], attributes: Mapping[str, Any]) -> None:
    """Have a layer be of a subclass of its class that has more attributes, past `Layer.__setattr__`."""
    object.__setattr__(layer, "__class__", kind)
    for name, value in attributes.items():
        object.__setattr__(layer, name, value)


def set_class_back(layer: keras.layers.Layer, kind: type[keras.layers.Layer], attributes: Iterable[str]) -> None:
    """Undo `set_class`."""
    for name in attributes:
        object.__delattr__(layer, name)
    object.__setattr__(layer, "__class__", kind)


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


def in_memory_code_allowed() -> Any:
    """A context in which layers with code in them (Lambda) can be made again: that code runs already."""
    return SafeModeScope(safe_mode=False)


def live_argument(layer: keras.layers.Layer, name: str) -> Any:
    """The function or object that a layer was given as an argument; `None` if none, or kept elsewhere.

    Some layers keep theirs in a private attribute: `MultiHeadAttention._kernel_initializer`.
    """
    candidates = (getattr(layer, attribute, None) for attribute in (name, f"_{name}"))
    return next(filter(callable, candidates), None)


def knows_training(operation: Any) -> bool:
    """Whether an operation is a layer whose call takes `training`. `Layer._call_has_training_arg`."""
    return isinstance(operation, keras.layers.Layer) and bool(operation._call_has_training_arg)


def training_by_default(operation: Any) -> Any:
    """What a layer takes `training` to be where nothing says, which Keras records as told. `Layer._call_signature`."""
    if not knows_training(operation):
        return None
    parameter = operation._call_signature.parameters.get("training")
    return None if parameter is None else parameter.default


def mask_of(tensor: Any) -> Any:
    """The mask that travels with a tensor, `None` if there is none."""
    return get_keras_mask(tensor)


def set_mask(tensor: Any, mask: Any) -> None:
    """Have a mask travel with a tensor."""
    set_keras_mask(tensor, mask)


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


@contextlib.contextmanager
def undistributed() -> Iterator[None]:
    """Inside, Keras makes and runs in this process what `keras.distribution` would spread over several.

    The seeds that it draws meanwhile are drawn again afterwards: what several processes make next they make alike.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        yield
        return
    seeds = random.getstate(), [(each, each.value) for each in global_seed_variables()]
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
        random.setstate(seeds[0])
        for variable, value in seeds[1]:
            variable.assign(value)


def scope_of(model: Any) -> Any:
    """Where to make what is to train as a model does: the scope of its `tf.distribute` strategy, unless one is open.

    By `Model._distribute_strategy`, which is none where the model was made outside of any.
    """
    strategy = getattr(model, "_distribute_strategy", None)
    if strategy is None or tensorflow.distribute.has_strategy():
        return contextlib.nullcontext()
    return strategy.scope()


def is_shared(model: keras.Model) -> bool:
    """Whether several processes hold the variables of a model together, as JAX's do with `keras.distribution`."""
    return keras.backend.backend() == "jax" and any(
        isinstance(each.value, jax.Array) and not each.value.is_fully_addressable for each in model.variables
    )


def own_copy(variable: keras.Variable) -> Any:
    """The value of a variable; where several processes share it, put together from what this one holds.

    Raises:
        ValueError: if that is no more than a part of it.
    """
    value = variable.value
    if keras.backend.backend() != "jax" or value.is_fully_addressable:
        return value
    if value.is_fully_replicated:
        return value.addressable_data(0)
    whole, missing = np.empty(value.shape, value.dtype), np.ones(value.shape, bool)
    for shard in value.addressable_shards:
        whole[shard.index], missing[shard.index] = shard.data, False
    if missing.any():
        raise ValueError(
            f"of {variable.path!r} this process holds only a part. Lay the mesh out so that the axis of the model is "
            "within a process, or load the model without keras.distribution"
        )
    return whole


def is_traced(tensor: Any) -> bool:
    """Whether a tensor stands for values that are not there yet, in a function that is being compiled."""
    match keras.backend.backend():
        case "tensorflow":
            return bool(tensorflow.is_symbolic_tensor(tensor))
        case "jax":
            return isinstance(tensor, jax.core.Tracer)
    return False


TRAINING_ATTRIBUTES = ("optimizer", "train_function", "test_function", "stop_training", "steps_per_execution")
"""What training a model changes about it besides variables."""


@contextlib.contextmanager
def trained_with(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[Callable[[Any], Any]]:
    """Have a model trained with another optimizer inside, by what it gives: a step of training on a batch.

    A `train_step` gets the batch as `fit` would hand it on: `Model.train_on_batch` fills it up with `None`.
    """
    before = {name: getattr(model, name) for name in TRAINING_ATTRIBUTES}
    own = vars(model).get("train_step")
    length: int | None = None
    step = model.train_step

    def train_step(*arguments: Any) -> Any:
        *state, batch = arguments  # there is a state on JAX
        outcome = step(*state, batch[0] if length is None else batch[:length])
        return outcome if state or isinstance(outcome, dict) else {}

    def train_on(batch: Any) -> Any:
        nonlocal length
        length = len(batch) if isinstance(batch, list | tuple) else None
        return model.train_on_batch(*keras.utils.unpack_x_y_sample_weight(batch), return_dict=True)

    model.optimizer = optimizer
    model.train_function = None  # compiled for the one before
    model.steps_per_execution = 1
    object.__setattr__(model, "train_step", train_step)
    try:
        yield train_on
    finally:
        object.__delattr__(model, "train_step")
        if own is not None:
            object.__setattr__(model, "train_step", own)
        for name, value in before.items():
            setattr(model, name, value)


@contextlib.contextmanager
def beginnings() -> Iterator[list[tuple[keras.Variable, Callable[[], Any]]]]:
    """The variables that come into being inside, in their order, each with what gives the value that it begins with.

    `Variable._initialize` is gone through by each of them, also where a function is being compiled.
    """
    noted: list[tuple[keras.Variable, Callable[[], Any]]] = []
    initialize = keras.Variable._initialize

    def note(variable: keras.Variable, value: Any) -> None:
        if callable(value):
            noted.append((variable, value))
        elif not is_traced(value):
            array = np.array(keras.ops.convert_to_numpy(value))
            noted.append((variable, lambda: array))
        initialize(variable, value)

    keras.Variable._initialize = note
    try:
        yield noted
    finally:
        keras.Variable._initialize = initialize


def is_keras_object(value: Any) -> bool:
    """Whether something is of one of Keras's classes, or of one that was made from them."""
    return any(map(is_keras_own, type(value).__mro__))


def global_seed_variables() -> list[keras.Variable]:
    """The state of the seed generator for random operations that have none of their own."""
    generator = get_global_attribute(GLOBAL_SEED_GENERATOR)
    return [] if generator is None else [generator.state]


def is_seed(variable: Any) -> bool:
    """Whether a variable is the state of a generator of random numbers."""
    return isinstance(variable, keras.Variable) and variable.name == "seed_generator_state"


def greater_is_better(model: keras.Model, metric: str) -> bool | None:
    """Whether the greater value of a metric is the better one, by the name in the logs; `None` if Keras does not know.

    Those of one of several outputs have the name of it ahead of their own.
    """
    if metric == "loss" or metric.endswith("_loss"):
        return False
    for each in (inner for outer in model.metrics for inner in getattr(outer, "metrics", (outer,))):
        direction = getattr(each, "_direction", None)
        if direction is not None and (metric == each.name or metric.endswith(f"_{each.name}")):
            return bool(direction == "up")
    return None


def batches_of(*data: Any, batch_size: int, shuffle: bool = False) -> tuple[Iterator[Any], float | None]:
    """What `fit(*data)` would take, batch by batch, and how many batches there are.

    That is infinity for what never ends, and `None` where it is not known.

    Raises:
        ValueError: if it is nothing that `fit` takes.
    """
    leaves = keras.tree.flatten(data[0]) if isinstance(data[0], list | tuple | dict) else data[:1]
    if all(leaf is None for leaf in leaves):
        raise ValueError(f"it is {data[0]!r}")
    if all(isinstance(leaf, Number) for leaf in leaves):
        raise ValueError("it is Python numbers, to be made arrays with numpy.asarray")
    if isinstance(data[0], Iterator):  # Keras takes none that yields inputs alone
        return data[0], math.inf if isinstance(data[0], itertools.cycle) else None
    with undistributed():  # which deals a dataset out to the processes, and refuses all else: this is one's share
        adapter = get_data_adapter(*data, batch_size=batch_size, shuffle=shuffle)
    count = adapter.num_batches
    if count is None and _never_ends(data[0]):
        count = math.inf
    return iter(adapter.get_numpy_iterator()), count


def _never_ends(data: Any) -> bool:
    """Whether a dataset of which Keras knows no number of batches says that it is infinite."""
    if isinstance(data, keras.utils.PyDataset):
        return True
    cardinality = getattr(data, "cardinality", None)
    return callable(cardinality) and int(cardinality()) == -1  # tf.data.INFINITE_CARDINALITY


def standardized_inputs(functional: Functional, inputs: Any) -> list[Any]:
    """A model's inputs as its graph takes them: tensors, flat, of the right rank and dtype.

    Raises:
        ValueError: if they do not fit.
    """
    return list(functional._standardize_inputs(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)))


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate as the optimizer holds it: a variable, a schedule or a function."""
    return optimizer._learning_rate


def is_multi_optimizer(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer hands each variable to one of several. Keras 3.14 has none."""
    kind = getattr(keras.optimizers, "MultiOptimizer", None)
    return kind is not None and isinstance(optimizer, kind)


def optimizer_map_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """What gives the optimizer for each variable of a `MultiOptimizer`."""
    return optimizer._optimizer_map


def step_counter(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The variable that counts steps; `Optimizer.iterations` counts accumulated ones."""
    return optimizer._iterations


def variables_optimized_by(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer was built for."""
    return list(optimizer._trainable_variables)


_BOOKKEEPING = {"_trainable_variables", "_variables", "_learning_rate", "_lock"}


def attributes_of_optimizer(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """What an optimizer holds, besides its learning rate, its weights and a list of all its variables."""
    return {
        name: value
        for name, value in vars(optimizer).items()
        if name not in _BOOKKEEPING and not name.startswith(("_self_", "_tracker"))
    }


def is_average_of_weights(attribute: object) -> bool:
    """Whether an attribute of optimizers holds the averages of weights that `use_ema` asks for."""
    return attribute == "_model_variables_moving_average"


def decays_weights(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer decays weights: `Muon` has two strengths of it."""
    return any(getattr(optimizer, name, None) is not None for name in ("weight_decay", "adam_weight_decay"))


def averaged_weights(optimizer: keras.optimizers.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """The weights of which an optimizer keeps averages, as `use_ema` asks for, each with its average."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return averaged_weights(optimizer.inner_optimizer)
    if is_multi_optimizer(optimizer):
        return [pair for each in optimizer._inner_optimizers for pair in averaged_weights(each)]
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    return [*zip(optimizer._trainable_variables, averages, strict=True)] if averages else []


def move_ahead(callback: keras.callbacks.Callback, behind: type[keras.callbacks.Callback]) -> None:
    """Have a callback that is being given its model called ahead of the others, but for those of one kind.

    The list that it is in is found on the stack: Keras tells a callback of its model, and nothing of the others.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList):
            others = [each for each in owner.callbacks if each is not callback]
            first = [each for each in others if isinstance(each, behind)]
            # Another list, since this one is being gone through.
            owner.callbacks = [*first, callback, *(each for each in others if each not in first)]
            return
        frame = frame.f_back


class WeightByWeight(keras.optimizers.Optimizer):  # type: ignore[misc]
    """A mixin ahead of a class of optimizers: a learning rate and weight decay for each weight.

    By what every optimizer of Keras's goes through: `update_step` is told the rate, and `_apply_weight_decay` asks
    `_get_current_learning_rate` and `_use_weight_decay`. Under torch a class that is none of Keras's own does as well.

    Attributes:
        rates: What the learning rate is multiplied by for each weight, in the order of the weights.
        decays: Whether each is decayed, likewise.
    """

    rates: tuple[float, ...]
    decays: tuple[bool, ...]
    _factor: float = 1.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
        """Update a weight at its own rate."""
        rate = self._rate_of(variable)
        return super().update_step(gradient, variable, learning_rate if rate == 1.0 else learning_rate * rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        for rate in sorted(set(self.rates)):
            self._factor = rate
            try:
                decayed = [each for each in variables if self._rate_of(each) == rate and self._use_weight_decay(each)]
                if decayed:
                    super()._apply_weight_decay(decayed)
            finally:
                self._factor = 1.0

    def _rate_of(self, variable: Any) -> float:
        return float(self.rates[self._get_variable_index(variable)])

    def _get_current_learning_rate(self) -> Any:
        rate = super()._get_current_learning_rate()
        return rate if self._factor == 1.0 else rate * self._factor

    def _use_weight_decay(self, variable: Any) -> bool:
        return bool(self.decays[self._get_variable_index(variable)] and super()._use_weight_decay(variable))


def keys_of_weight(optimizer: keras.optimizers.Optimizer, weight: keras.Variable) -> tuple[Any, ...]:
    """What an optimizer may find the variables for one weight by. `Optimizer._var_key` is Keras's own way."""
    return optimizer._var_key(weight), id(weight), weight.path


def excluded_from_weight_decay(
    optimizer: keras.optimizers.Optimizer, weights: Iterable[keras.Variable]
) -> tuple[list[keras.Variable], str | None]:
    """Which of some weights an optimizer does not decay as it was told them, and its pattern of names of others."""
    excluded: set[Any] = getattr(optimizer, "_exclude_from_weight_decay", set())
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return [weight for weight in weights if optimizer._var_key(weight) in excluded], pattern and pattern.pattern


@contextlib.contextmanager
def deferred_variables() -> Iterator[None]:
    """Variables made inside get their values when the context ends, from `set_value` where it was called.

    So no weight is drawn at random only to be overwritten. Keras refuses a variable that is made
    from an array here, with a `ValueError` for which see `refused_to_defer`. A function that is compiled
    here would hold on to what a variable has in the meantime, so none is.
    """
    with keras.StatelessScope(), every_call_made():
        yield


def list_parameters(model: keras.Model) -> None:
    """List a model's parameters for its `state_dict` as a torch module, after `deferred_variables`.

    The torch backend does that when a layer is built, but not in such a context. `TorchLayer._track_variables`.
    """
    if keras.backend.backend() == "torch":
        for layer in sublayers(model):
            for module in filter(None, (layer, functional_of(layer))):
                if not hasattr(module, "_torch_params"):
                    module._track_variables()


def set_value(variable: Any, value: Any) -> None:
    """Give a variable a copy of a value: at once, or when the enclosing `deferred_variables` ends.

    The one way to do so. What shares its memory with another is lost with it: in training torch writes to it, and
    JAX frees it. TensorFlow shares the memory of both until one of them is written to.

    Args:
        variable: The variable, of Keras or, once it has a value, of TensorFlow.
        value: Another variable, a tensor, an array, or a number for all of its elements.
    """
    if not isinstance(variable, keras.Variable):
        variable.assign(value)
    elif variable._value is None:
        variable._initializer = lambda shape, dtype=None: _placed(variable, _filling(shape, dtype, value))
    else:
        variable.assign(_placed(variable, _filling(variable.shape, variable.dtype, value)))


def _placed(variable: keras.Variable, value: Any) -> Any:
    """A value laid out as a variable is that several processes share: JAX would ask all whether it is the same there.

    By `Variable._layout`, which Keras has by the time that a variable gets a value.
    """
    layout = getattr(variable, "_layout", None)
    sharding = getattr(layout, "backend_layout", layout)
    if keras.backend.backend() != "jax" or sharding is None or sharding.is_fully_addressable:
        return value
    whole = np.asarray(value)
    return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)


def _filling(shape: Any, dtype: Any, value: Any) -> Any:
    if isinstance(value, float):
        return keras.ops.full(shape, value, dtype)
    if isinstance(value, keras.Variable):
        value = own_copy(value)
    return keras.ops.copy(keras.ops.cast(keras.ops.convert_to_tensor(value), dtype))


def refused_to_defer(error: ValueError) -> bool:
    return "while in a stateless scope" in str(error)


@contextlib.contextmanager
def room_for_depth(depth: int) -> Iterator[None]:
    """Let Keras walk a graph of this depth: its walk recurses once for each call on the way."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 1000 + 3 * depth))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def layer_of_applications(name: str) -> Any:
    """A class of layers that only networks of `keras.applications` have; `None` if there is none of that name."""
    found = (convnext.LayerScale, convnext.StochasticDepth, inception_resnet_v2.CustomScaleLayer)
    return {kind.__name__: kind for kind in found}.get(name)


@contextlib.contextmanager
def variables_within(limit: int) -> Iterator[None]:
    """Refuse variables with more elements together than a limit, before they take memory.

    Raises:
        ValueError: where the limit is passed. `Variable._initialize_with_initializer` knows the shape by then.
    """
    initialize = keras.Variable._initialize_with_initializer
    total = 0

    def counted(variable: keras.Variable, initializer: Any) -> None:
        nonlocal total
        total += math.prod(variable.shape)
        if total > limit:
            raise ValueError(
                f"its weight {variable.path!r} of shape {tuple(variable.shape)} is out of proportion to the file"
            )
        initialize(variable, initializer)

    keras.Variable._initialize_with_initializer = counted
    try:
        yield
    finally:
        keras.Variable._initialize_with_initializer = initialize
