"""What the tests share: models with weights worth testing, and one comparison for rewritten models."""

import itertools

import keras
import numpy as np
import pytest


def randomize(model, seed=0):
    """Give a model weights over decades, gamma of both signs and statistics far from fresh ones."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        values = generator.normal(size=variable.shape)
        if variable.name in ("moving_variance", "variance"):
            values = np.exp(2 * values)
        elif variable.name == "gamma":
            values = np.sign(values) * np.exp(values)
        elif len(variable.shape) > 1:
            values /= np.sqrt(np.prod(variable.shape[:-1]))
        variable.assign(values)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with copies of its statistics
    return model


def random_inputs(model, batch=4, seed=1):
    """Inputs for a model in its own structure."""
    generator = np.random.default_rng(seed)

    def draw(tensor):
        shape = [batch if axis == 0 and size is None else size or 12 for axis, size in enumerate(tensor.shape)]
        if keras.backend.is_float_dtype(tensor.dtype):
            return generator.normal(size=shape).astype(tensor.dtype)
        return generator.integers(0, 5, size=shape).astype(tensor.dtype)

    return keras.tree.map_structure(draw, model.inputs[0] if isinstance(model, keras.Sequential) else model.input)


def inference(model, inputs):
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(model(inputs, training=False))]


def assert_same_function(expected, got, inputs=None, tolerance=1e-5, amplification=0.0):
    """Max |difference| of the outputs at inference <= tolerance of max |output|."""
    inputs = random_inputs(expected) if inputs is None else inputs
    for one, other in zip(inference(expected, inputs), inference(got, inputs), strict=True):
        assert one.shape == other.shape
        allowed = max(tolerance * np.max(np.abs(one), initial=1e-30), amplification)
        np.testing.assert_array_less(np.max(np.abs(one - other), initial=0.0), allowed * (1 + 1e-12) + 1e-30)


def in_turn(first, *others):
    """All combinations of values, each of the first with one of the others in turn; the rest with the slow tests."""
    combined = list(itertools.product(*others))
    for number, value in enumerate(first):
        for place, values in enumerate(combined):
            marks = () if place == number % len(combined) else pytest.mark.slow
            yield pytest.param(value, *values, marks=marks)


def snapshot(model):
    """All that a rewrite may not change in its source."""
    optimizer = getattr(model, "optimizer", None)
    return {
        "weights": [(id(variable), variable.path, variable.numpy().tobytes()) for variable in model.variables],
        "trainable": [layer.trainable for layer in model.layers],
        "layers": [(id(layer), layer.name) for layer in model.layers],
        "policies": [layer.dtype_policy for layer in model._flatten_layers()],
        "config": model.get_config(),
        "compiled": model.compiled,
        "compile_config": model.get_compile_config(),
        "optimizer": optimizer and [(id(variable), variable.numpy().tobytes()) for variable in optimizer.variables],
    }


def recorded_calls(model):
    """How many calls Keras has recorded on each layer and operation of a model, in models inside as well."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    operations = {id(each): each for each in [*model._flatten_layers(), *getattr(functional, "operations", ())]}
    inside = [each for each in operations.values() if isinstance(each, keras.Model) and each is not model]
    counts = [(each.name, len(each._inbound_nodes), len(each._outbound_nodes)) for each in operations.values()]
    return sorted([*counts, *(count for each in inside for count in recorded_calls(each))])


def names(model):
    return " ".join(layer.name for layer in model.layers)


def wiring(model):
    """The edges of a model's graph, `"conv>conv_bn"`, of operations too."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    return {
        f"{tensor._keras_history.operation.name}>{node.operation.name}"
        for nodes in functional._nodes_by_depth.values()
        for node in nodes
        for tensor in node.input_tensors
    }


def sequential(*layers, shape=(12,), **kwargs):
    """A Sequential with random weights, behind an input and ahead of a head."""
    head = keras.layers.Dense(3, activation="softmax", name="head")
    return randomize(keras.Sequential([keras.Input(shape, name="in"), *layers, head], **kwargs))
