"""Through what maps pass, and how: one entry a type of layer or name of an operation. The rest does not commute."""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers

from kerasbn import _keras
from kerasbn.catalog import activations, families
from kerasbn.catalog.roles import Role, activation_name, role_of
from kerasbn.graph.model import CallSite, core_of
from kerasbn.passes.folding.absorb import check_homogeneous
from kerasbn.passes.folding.affine import Affine
from kerasbn.passes.folding.transport.branches import (
    DIFFERENCE,
    EXTREME_OF_BRANCHES,
    JOINED,
    MEAN_OF_BRANCHES,
    SUM,
)
from kerasbn.passes.folding.transport.pooling import GLOBAL_MAXIMUM, GLOBAL_MEAN, MAXIMA, MEANS
from kerasbn.passes.folding.transport.shapes import CROPPED, FLATTENED, PADDED, RESHAPED, TRANSPOSED, ZERO_PADDED
from kerasbn.passes.folding.transport.transport import Transport, with_one_input


def _through_homogeneous(site: CallSite, affine: Affine) -> Affine:
    check_homogeneous(affine)
    return affine


KEPT = with_one_input(lambda site, affine: affine)
_HOMOGENEOUS = with_one_input(_through_homogeneous, passes_shift=False)

LAYERS: dict[type, Transport] = {
    **dict.fromkeys(families.DROPOUTS, KEPT),
    layers.Reshape: RESHAPED,
    layers.Flatten: FLATTENED,
    layers.Permute: TRANSPOSED,
    **dict.fromkeys(families.ZERO_PADDINGS, ZERO_PADDED),
    **dict.fromkeys(families.CROPPINGS, CROPPED),
    **dict.fromkeys((*families.UPSAMPLINGS, *families.AVERAGE_POOLINGS), MEANS),
    **dict.fromkeys(families.MAX_POOLINGS, MAXIMA),
    **dict.fromkeys(families.GLOBAL_AVERAGE_POOLINGS, GLOBAL_MEAN),
    **dict.fromkeys(families.GLOBAL_MAX_POOLINGS, GLOBAL_MAXIMUM),
    layers.Add: SUM,
    layers.Subtract: DIFFERENCE,
    layers.Average: MEAN_OF_BRANCHES,
    **dict.fromkeys((layers.Maximum, layers.Minimum), EXTREME_OF_BRANCHES),
    layers.Concatenate: JOINED,
}

_OPERATIONS: Mapping[str, Transport] = {
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), RESHAPED),
    "Transpose": TRANSPOSED,
    "Pad": PADDED,
    "AveragePool": MEANS,
    "MaxPool": MAXIMA,
    "Mean": GLOBAL_MEAN,
    "Add": SUM,
    "Subtract": DIFFERENCE,
    **dict.fromkeys(("Maximum", "Minimum"), EXTREME_OF_BRANCHES),
    "Concatenate": JOINED,
}
"""Operations by the name of their class."""


def transport_of(site: CallSite) -> Transport | None:
    """How maps pass through a call site, `None` if they do not."""
    operation = site.operation
    role = role_of(operation)
    is_layer = isinstance(operation, keras.layers.Layer)
    if not isinstance(operation, keras.Operation):
        return None
    if (role is Role.MERGE or not is_layer) and not _takes_values_alone(site):
        return None
    if role is Role.IDENTITY:
        return KEPT
    if role is Role.ACTIVATION:
        return _HOMOGENEOUS if _is_homogeneous(core_of(operation)) else None
    return LAYERS.get(type(operation)) if is_layer else _OPERATIONS.get(_keras.operation_name(operation) or "")


def _takes_values_alone(site: CallSite) -> bool:
    """Whether all that a site is called with are values, not constants such as the 1 in `x + 1`."""
    given = [leaf for leaf in keras.tree.flatten((site.args, dict(site.kwargs))) if leaf is not None]
    return len(given) == len(site.inputs)


def _is_homogeneous(operation: keras.Operation) -> bool:
    return (
        activation_name(operation) in activations.HOMOGENEOUS
        and getattr(operation, "max_value", None) is None
        and not getattr(operation, "threshold", None)
    )
