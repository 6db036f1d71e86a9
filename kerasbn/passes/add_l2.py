"""Give L2 to the kernels that have no regularizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import keras

from kerasbn.facts.facts import Facts
from kerasbn.graph.clone import spec_of
from kerasbn.graph.edit import Configure
from kerasbn.graph.model import LayerSpec
from kerasbn.options import Options
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.reasons import Reason, Skip

_OF_KERNELS = ("kernel_regularizer", "depthwise_regularizer", "pointwise_regularizer", "recurrent_regularizer")


@dataclasses.dataclass(frozen=True, eq=False)
class _AddL2(Configure):
    """What gives L2 to some kernels of a layer."""

    count: int


def add_l2(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose L2 for each kernel that is trained and has no regularizer."""
    strength = options["l2"]
    if strength is None:
        return
    removed = draft.removed
    for layer, sites in facts.calls.items():
        addresses = [site.address for site in sites if site.address not in removed]
        if not addresses or not isinstance(layer, keras.layers.Layer) or not layer.trainable_variables:
            continue
        arguments = [*_of_kernels(spec_of(layer))]
        bare = [name for name, regularizer in arguments if regularizer is None]
        if bare and _is_regularized_besides(layer, [regularizer for _, regularizer in arguments]):
            yield Skip(addresses[0], Reason.REGULARIZER, "it has regularizers that are not arguments of the layer")
        elif bare:
            names = dict.fromkeys(bare)
            l2 = {name: keras.regularizers.L2(strength) for name in names}
            detail = f"{', '.join(names)} of L2({strength:g})"
            yield Edit(addresses[0], "replace", detail, (_AddL2(layer, l2, len(bare)),))


def note_on_l2(options: Options, draft: Draft) -> Iterator[str]:
    """To how many kernels L2 is added."""
    if (strength := options["l2"]) is not None:
        count = sum(change.count for change in draft.changes if isinstance(change, _AddL2))
        yield f"L2({strength:g}) is added to the {count} kernels that have no regularizer."


def _of_kernels(spec: LayerSpec) -> Iterator[tuple[str, object]]:
    """The arguments of a layer that regularize kernels, and those of the layers that it wraps."""
    for inner in spec.wrapped.values():
        yield from _of_kernels(inner)
    for name in _OF_KERNELS:
        if name in spec.config:
            yield name, spec.config[name]


def _is_regularized_besides(layer: keras.layers.Layer, given: list[object]) -> bool:
    """Whether a kernel has a regularizer that is none of those that the layer was given."""
    kernels = [weight for weight in layer.trainable_variables if weight.name.endswith("kernel")]
    return any(
        weight.regularizer is not None and all(weight.regularizer is not each for each in given) for weight in kernels
    )
