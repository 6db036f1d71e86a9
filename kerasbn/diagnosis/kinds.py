"""The kinds of findings, each with what it means."""

from __future__ import annotations

import dataclasses
import enum


class Kind(enum.Enum):
    """What is found: a word, which is the value, what it means, and whether it harms or is but a hint."""

    meaning: str
    harms: bool

    def __new__(cls, word: str, meaning: str = "", harms: bool = True) -> Kind:
        """A member of that word."""
        member = object.__new__(cls)
        member._value_ = word
        member.meaning = member.__doc__ = meaning
        member.harms = harms
        return member

    STATISTICS = (
        "statistics",
        "The moving statistics are not those of the data, taken as in training: the mean, in standard deviations of "
        "the data, or the variance.",
    )
    MOMENTUM = (
        "momentum",
        "The optimizer has taken too few steps for the momentum, about 1 / (1 - momentum) and more, so that the moving "
        "statistics still hold what they began with.",
    )
    MODES = (
        "modes",
        "The model yields something else where its layers normalize by the batch, as in training, than at inference.",
    )
    TOO_FEW = (
        "too_few",
        "A batch, or a replica's or a ghost batch's part of it, has too few examples for statistics of its own.",
    )
    FIXED_TRAINING = (
        "fixed_training",
        "Called with training=True, or inside a model that is: wherever nobody says otherwise, what is predicted for "
        "an example depends on the batch it is in.",
    )
    DEAD = (
        "dead",
        "Channels that are the same for all of the data, or that gamma multiplies by zero: they tell nothing.",
    )
    EXPLODED = "exploded", "Weights, statistics or values that are not finite, or far greater than any that train."
    DROPOUT = (
        "dropout",
        "Dropout or noise ahead makes the variance greater in training than at inference, and the moving variance is "
        "that of training.",
    )
    MIXED = (
        "mixed",
        "Some batch normalization is frozen, some is not, and this one is what the layer that feeds it is not.",
    )
    AVERAGES = (
        "averages",
        "The optimizer keeps averages of the weights (use_ema), and the model has its own weights, not those.",
    )
    DOUBLE = "double", "It normalizes what another normalization yields, with nothing between that would change it."
    AXIS = "axis", "It normalizes another axis than that of the channels of the layer ahead."
    FLOAT16 = (
        "float16",
        "The moving statistics are kept in half precision, where what each step adds rounds to nothing.",
    )
    BIAS = (
        "bias",
        "The bias of the layer ahead does nothing: the mean that is taken off takes it off as well.",
        False,
    )
    DECAY = (
        "decay",
        "Gamma decays, by the optimizer's weight decay or an L2 regularizer. It keeps no function simple, as what "
        "follows can undo it; many leave it out.",
        False,
    )


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about the batch normalization of a model.

    Attributes:
        site: The path of the layer, or the name of the model where it is about the whole of it.
        kind: What it is.
        detail: The particulars, for people to read.
        remedy: What to do about it.
    """

    site: str
    kind: Kind
    detail: str
    remedy: str
