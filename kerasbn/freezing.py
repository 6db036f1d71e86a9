"""Freeze batch normalization in place, and thaw it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import keras

from kerasbn import _keras
from kerasbn.catalog.norms import chosen_norms
from kerasbn.errors import OptionError, UnsupportedModelError, listed
from kerasbn.facts.facts import Facts
from kerasbn.graph.read import read_to_run
from kerasbn.serializable import BatchNormalization

What: TypeAlias = Literal["all", "statistics"]

_OURS = {
    "virtual_batch_size": None,
    "unbiased_variance": False,
    "zero_debias": False,
    "accumulate": 1,
    "accumulated_mean": None,
    "accumulated_variance": None,
    "accumulated_count": None,
    "accumulated_batches": None,
    "seen_batches": None,
    "frozen_statistics": True,
}
"""What kerasbn's layer has besides Keras's, as it is where Keras's becomes one."""


@dataclasses.dataclass(frozen=True)
class _Before:
    """What one batch normalization was, its class and flags."""

    norm: keras.layers.BatchNormalization
    kind: type[keras.layers.BatchNormalization]
    trainable: bool
    of_weights: tuple[bool, ...]
    frozen_statistics: bool

    @classmethod
    def of(cls, norm: keras.layers.BatchNormalization) -> _Before:
        of_weights = tuple(weight.trainable for weight in norm.weights)
        return cls(norm, type(norm), norm.trainable, of_weights, getattr(norm, "frozen_statistics", False))

    def put_back(self) -> None:
        if type(self.norm) is not self.kind:
            _keras.set_class_back(self.norm, self.kind, _OURS)
        elif isinstance(self.norm, BatchNormalization):
            self.norm.frozen_statistics = self.frozen_statistics
        _keras.set_own_trainable(self.norm, self.trainable)
        for weight, trainable in zip(self.norm.weights, self.of_weights, strict=True):
            weight.trainable = trainable


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Batch normalization that `kerasbn.freeze` has frozen.

    Example:

    ```python
    frozen = kerasbn.freeze(model)
    print(frozen.layers, frozen.notes)
    frozen.thaw()
    ```

    Attributes:
        model: The model.
        what: `"all"` or `"statistics"`.
        layers: The paths of the batch normalizations that are frozen.
        notes: What else to know.
    """

    model: keras.Model
    what: What
    layers: tuple[str, ...]
    notes: tuple[str, ...]
    _before: tuple[_Before, ...] = dataclasses.field(repr=False)

    def thaw(self) -> keras.Model:
        """Have all flags as they were before.

        Returns:
            The model.
        """
        for each in self._before:
            each.put_back()
        _keras.forget_compiled_functions(self.model)
        return self.model


def freeze(model: keras.Model, glob: str | Iterable[str] = "*", what: What = "all") -> Frozen:
    """Freeze batch normalization in place: its statistics, or all of it.

    A frozen one normalizes by its moving statistics in training too, and does not change them. That is for
    fine-tuning in batches of one, which have no statistics worth having. In larger ones batch normalization as it is
    learns as much or more, and it bears higher learning rates (docs/reproduce/small_batches.md). And it is for networks
    that fit a smooth function, to which each batch's own statistics do harm: frozen after some epochs, they fit it as
    those without batch normalization do (docs/reproduce/regression.md).

    It holds wherever the layers stand, also in models inside the model, in layers that wrap them or hold them, and for
    a model that is saved from now on. A compiled model trains on so; under JAX, `compile` it again, as Keras wants it
    whenever what is trained has changed.

    Example:

    ```python
    frozen = kerasbn.freeze(model, "backbone/*")
    model.fit(x, y)
    frozen.thaw()
    ```

    Args:
        model: A Keras model, changed in place: the flags of batch normalizations, nothing else.
        glob: A glob over their paths, or several, such as `"stage[12]/*"`. Defaults to `"*"`: all.
        what: `"all"`: gamma and beta are not trained either. `"statistics"`: they are; then
            `keras.layers.BatchNormalization`s become `kerasbn.layers.BatchNormalization`s, since Keras has no such
            layer. Defaults to `"all"`.

    Returns:
        A `Frozen`, whose `thaw()` restores what was.

    Raises:
        OptionError: for an option that is not valid, and a glob that matches no batch normalization.
        UnsupportedModelError: with `"statistics"`, if one is of a class of the user's own.
    """
    if what not in ("all", "statistics"):
        raise OptionError(f"Option what is {what!r}; it must be 'all' or 'statistics'.")
    norms = chosen_norms(model, glob)
    before = tuple(map(_Before.of, norms))
    if what == "statistics":
        for norm, path in norms.items():
            _check_class(norm, path)
    for norm in norms:
        if what == "all":
            norm.trainable = False
        elif isinstance(norm, BatchNormalization):
            norm.frozen_statistics = True
        else:
            _keras.set_class(norm, BatchNormalization, _OURS)
    _keras.forget_compiled_functions(model)
    return Frozen(model, what, tuple(norms.values()), tuple(_notes(model, [*norms.values()])), before)


def _check_class(norm: keras.layers.BatchNormalization, path: str) -> None:
    kind = type(norm)
    if kind is not keras.layers.BatchNormalization and kind.call is not BatchNormalization.call:
        raise UnsupportedModelError(
            f"Layer {path!r} is a {kind.__name__}, a class of your own, so its statistics cannot be frozen alone. "
            "Leave it out by its path, or freeze all of it with what='all'."
        )


def _notes(model: keras.Model, paths: Sequence[str]) -> Iterable[str]:
    if not _keras.is_graph(model):
        return
    trained = {address.partition("#")[0] for address in Facts(read_to_run(model)).trained}
    overridden = [path for path in paths if path in trained]
    if overridden:
        yield (
            f"Called with training=True in the graph: {listed(overridden)}. Frozen, they use their moving statistics "
            "all the same, at inference too, where they normalized by the batch before."
        )
