"""Keras's optimizers, with a learning rate and weight decay for each weight.

The rate of a weight multiplies the learning rate with which the optimizer updates it, so that each weight learns as
with an optimizer of that rate. Its gradient times the factor would not do: Adam and its kin divide a gradient by its
own size, so that the factor cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import OptionError

_KINDS: tuple[type[keras.optimizers.Optimizer], ...] = tuple(
    kind
    for name, kind in sorted(vars(keras.optimizers).items())
    if isinstance(kind, type)
    and issubclass(kind, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
)


class _WeightByWeight(_keras.WeightByWeight):
    """What the classes have in common.

    Args:
        rates: What the learning rate is multiplied by for each weight to be trained, in the model's order.
        decays: Whether weight decay is for each of them, likewise.
        **kwargs: The arguments of the optimizer.
    """

    def __init__(self, *, rates: Sequence[float], decays: Sequence[bool], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rates = tuple(map(float, rates))
        self.decays = tuple(map(bool, decays))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the slots for the weights, which are those that the rates are for.

        For none at all is how Keras has it built that reads a `.h5` file.
        """
        if not self.built and variables and len(variables) != len(self.rates):
            raise OptionError(
                f"Optimizer {self.name!r} has learning rates for {len(self.rates)} weights, and is to train "
                f"{len(variables)}. Freeze and thaw layers before kerasbn.rewrite(model, rates=..., "
                "decay_exclude=...), or compile the model with a new optimizer."
            )
        super().build(variables)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "rates": list(self.rates), "decays": list(self.decays)}


def _derived(kind: type[keras.optimizers.Optimizer]) -> type[_WeightByWeight]:
    body = {"__doc__": f"`keras.optimizers.{kind.__name__}`, weight by weight.", "__module__": __name__}
    made = type(f"{kind.__name__}WeightByWeight", (_WeightByWeight, kind), body)
    return keras.saving.register_keras_serializable(package="kerasbn")(made)  # type: ignore[no-any-return]


_OF: Mapping[type, type[_WeightByWeight]] = {kind: _derived(kind) for kind in _KINDS}


def weight_by_weight_class(kind: type) -> type[_WeightByWeight] | None:
    """The class of optimizers that do what a class of Keras's does, weight by weight; `None` for others' classes."""
    if issubclass(kind, _WeightByWeight):
        return kind
    if not _keras.is_keras_own(kind):
        return None
    return next((_OF[each] for each in kind.__mro__ if each in _OF), None)
