"""The role that each layer and operation plays in a network, as batch normalization sees it.

Layers go by their exact type, since a subclass may compute something else; only normalizations, embeddings
and recurrent layers stay what they are when subclassed. Operations go by the name of their class.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import keras
from keras import layers

from kerasbn import _keras
from kerasbn.catalog import activations, families
from kerasbn.catalog.linear import LINEAR
from kerasbn.graph.model import Graph, LayerSpec, Masked, Operation, core_of, type_of
from kerasbn.graph.steps import AllSteps, EachStep
from kerasbn.serializable.batch_normalized_rnn import cells_of


class Role(enum.Enum):
    """What a layer or operation does to the values that go through."""

    INPUT = enum.auto()
    """Yields an input of its model."""
    LINEAR = enum.auto()
    """Mixes channels or locations: W x + b."""
    ACTIVATION = enum.auto()
    """Applies a function to each value, or across the channels of one location."""
    BATCH_NORMALIZATION = enum.auto()
    NORMALIZATION = enum.auto()
    """Normalizes each example by itself."""
    DROPOUT = enum.auto()
    """Random while training, nothing at inference: Dropout of any kind, and noise."""
    IDENTITY = enum.auto()
    """Leaves the values as they are, at inference at least."""
    REARRANGEMENT = enum.auto()
    """Moves values, adds zeros, cuts or casts; the channels may come to lie on another axis."""
    POOLING = enum.auto()
    """Pools or resamples within each channel."""
    GLOBAL_POOLING = enum.auto()
    """Pools each channel over all locations."""
    MERGE = enum.auto()
    """Adds, joins or compares branches."""
    PRODUCT = enum.auto()
    """Multiplies branches, as a gate does."""
    ATTENTION = enum.auto()
    """Multiplies matrices of values."""
    EMBEDDING = enum.auto()
    RECURRENT = enum.auto()
    """Goes along steps, each with what the one before it came to."""
    OTHER = enum.auto()
    """Anything else: a layer that is not looked into."""


NORMALIZING = frozenset({Role.BATCH_NORMALIZATION, Role.NORMALIZATION})
KEEPING = frozenset({Role.IDENTITY, Role.DROPOUT, Role.REARRANGEMENT})
"""Roles under which each value comes out as it went in, at inference."""
OPAQUE = frozenset({Role.RECURRENT, Role.OTHER})
"""Roles of what is not looked into."""
PER_CHANNEL = KEEPING | {Role.POOLING, Role.GLOBAL_POOLING}
"""Roles under which what comes out of a channel depends on that channel alone."""

LAYERS: dict[type, Role] = {
    kind: role
    for role, kinds in {
        Role.INPUT: (layers.InputLayer,),
        Role.DROPOUT: families.DROPOUTS,
        Role.IDENTITY: (layers.Identity, layers.ActivityRegularization),
        Role.REARRANGEMENT: (*families.RESHAPINGS, *families.ZERO_PADDINGS, *families.CROPPINGS),
        Role.POOLING: (*families.AVERAGE_POOLINGS, *families.MAX_POOLINGS, *families.UPSAMPLINGS),
        Role.GLOBAL_POOLING: (*families.GLOBAL_AVERAGE_POOLINGS, *families.GLOBAL_MAX_POOLINGS),
        Role.MERGE: families.MERGES,
        Role.PRODUCT: (layers.Multiply,),
        Role.ATTENTION: families.ATTENTIONS,
        Role.RECURRENT: (layers.Bidirectional,),
    }.items()
    for kind in kinds
}
"""The roles of layers that are neither linear nor activations, which have tables of their own."""

_BASES: Mapping[type, Role] = {
    layers.BatchNormalization: Role.BATCH_NORMALIZATION,
    **dict.fromkeys(families.EXAMPLEWISE_NORMALIZATIONS, Role.NORMALIZATION),
    layers.Embedding: Role.EMBEDDING,
    layers.RNN: Role.RECURRENT,
}

_OPERATIONS: Mapping[str, Role] = {
    name: role
    for role, names in {
        Role.IDENTITY: "StopGradient",
        Role.REARRANGEMENT: (
            "Reshape Transpose Squeeze ExpandDims Ravel Moveaxis Swapaxes Unstack GetItem BroadcastTo "
            "Cast Pad Split ArraySplit Slice Tile Repeat Flip Roll"
        ),
        Role.GLOBAL_POOLING: "Mean Max",
        Role.POOLING: "MaxPool AveragePool",
        Role.MERGE: "Add Subtract Maximum Minimum Concatenate Stack",
        Role.PRODUCT: "Multiply",
        Role.ATTENTION: "Matmul Einsum Dot Tensordot DotProductAttention",
    }.items()
    for name in names.split()
}

_KEEPING_AXES = (*families.ZERO_PADDINGS, *families.CROPPINGS)
_OPERATIONS_KEEPING_AXES = ("Cast", "Pad", "Split", "ArraySplit", "Slice", "Tile", "Repeat", "Flip", "Roll")


def role_of(operation: Operation) -> Role:
    """The role of a layer, an operation, or a layer to be."""
    operation = core_of(operation)
    if isinstance(operation, Graph):
        return Role.OTHER
    if isinstance(operation, EachStep | AllSteps):
        return Role.REARRANGEMENT
    if isinstance(operation, Masked):
        return Role.IDENTITY
    if isinstance(operation, LayerSpec):
        return _of_layer(operation.cls)
    if (activation := activation_name(operation)) is not None:
        return Role.IDENTITY if activation == activations.LINEAR else Role.ACTIVATION
    if isinstance(operation, keras.layers.Layer):
        return _of_layer(type(operation))
    return _OPERATIONS.get(_keras.operation_name(operation) or "", Role.OTHER)


def joins(operation: Operation) -> bool:
    """Whether an operation concatenates."""
    return type_of(operation) is layers.Concatenate or _keras.operation_name(operation) == "Concatenate"


def adds(operation: Operation) -> bool:
    """Whether an operation sums values up."""
    return type_of(operation) is layers.Add or _keras.operation_name(operation) == "Add"


def mixes(operation: Operation) -> bool:
    """Whether a layer holds more than a number for each channel, so that it may mix channels or locations."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return any(sum(size != 1 for size in weight.shape) > 1 for weight in operation.weights)


def drops(layer: keras.layers.Layer) -> bool:
    """Whether a layer by itself is random while training: Dropout of any kind, noise, that of a recurrent layer."""
    cells = cells_of(layer) if isinstance(layer, layers.RNN) else []
    rates = (getattr(cell, name, 0) for cell in cells for name in ("dropout", "recurrent_dropout"))
    return role_of(layer) is Role.DROPOUT or any(rates)


def keeps_axes(operation: Operation) -> bool:
    """Whether a rearrangement leaves each axis where it is."""
    operation = core_of(operation)
    return type(operation) in _KEEPING_AXES or _keras.operation_name(operation) in _OPERATIONS_KEEPING_AXES


def activation_name(operation: keras.Operation) -> str | None:
    """The activation that a layer or operation of its own applies, `None` if it is something else."""
    operation = core_of(operation)
    if isinstance(operation, keras.layers.Layer):
        return activations.name_of_layer(operation)
    name = _keras.operation_name(operation)
    return None if name is None else activations.name_of_operation(name)


def applied_activation(operation: Operation) -> str:
    """The name of the activation that a layer or operation applies, by itself or built in; "linear" if none."""
    operation = core_of(operation)
    built_in = activations.name_of_function(getattr(operation, "activation", None))
    return activation_name(operation) or built_in


def _of_layer(kind: type[keras.layers.Layer]) -> Role:
    if kind in LINEAR:
        return Role.LINEAR
    if kind is layers.Activation or kind in activations.LAYERS:
        return Role.IDENTITY if activations.LAYERS.get(kind) == activations.LINEAR else Role.ACTIVATION
    if kind in LAYERS:
        return LAYERS[kind]
    return next((role for base, role in _BASES.items() if issubclass(kind, base)), Role.OTHER)
