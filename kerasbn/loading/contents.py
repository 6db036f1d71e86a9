"""What a file of Keras 2 holds, whichever kind of file it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Weight(NamedTuple):
    """A weight as the file has it, by the name that it had: `"dense/kernel"`."""

    name: str
    value: np.ndarray[Any, Any]


class Group(NamedTuple):
    """The weights of a layer by attribute, as in `.keras` files: its own, and those of what it holds."""

    own: tuple[np.ndarray[Any, Any], ...]
    inside: Mapping[str, Group]


Weights = Mapping[str, Sequence[Weight]] | Sequence[Weight] | Group
"""By the layers of the model; or one after another; or by attribute."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """A model of Keras 2.

    Attributes:
        config: Its class and config.
        weights: Its weights; `None` where they are in another file.
        training: What it was compiled with; `None` if it was not, or the file does not say.
        optimizer: The variables of its optimizer.
        vocabularies: The words of lookups, by the name of the layer, where they are not in the config.
    """

    config: Mapping[str, Any]
    weights: Weights | None
    training: Mapping[str, Any] | None = None
    optimizer: Sequence[Weight] = ()
    vocabularies: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
