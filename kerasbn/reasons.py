"""Why something is left as it is, and the one way to say so."""

from __future__ import annotations

import dataclasses
import enum


class Reason(enum.Enum):
    """Why a call site is left as it is: a word, which is the value, and what it means."""

    meaning: str

    def __new__(cls, word: str, meaning: str = "") -> Reason:
        """A member of that word."""
        member = object.__new__(cls)
        member._value_ = word
        member.meaning = member.__doc__ = meaning
        return member

    OUTPUT = (
        "output",
        "It is a head: its value is an output of the model, or becomes one through arithmetic, reshaping, pooling and "
        "output activations alone. In folding: a value that would change is an output.",
    )
    NORMALIZED = (
        "normalized",
        "Its block is normalized already, by a batch, layer, group, RMS, unit or spectral normalization.",
    )
    COVERED = "covered", "The normalization inserted at the neighbouring site of its block covers it."
    NORM = "norm", "The layer given as norm cannot normalize its value, or cannot do what the one there does."
    ALIKE = "alike", "A normalization that is to be replaced, and is like the layer given as norm already."
    UNIT_LENGTH = (
        "unit_length",
        "A normalization to unit length, which comparisons need as it is; it is replaced where a rule says so.",
    )
    NO_ACTIVATION = "no_activation", "The position is after the activation, and no activation follows."
    NOT_AFTER_LINEAR = (
        "not_after_linear",
        "An activation that does not follow a linear layer, such as one behind an addition.",
    )
    ACTIVATION = (
        "activation",
        "Its activation yields a distribution or weights (softmax and its kin), which are left as they are.",
    )
    SELF_NORMALIZING = "self_normalizing", "Its activation is SELU, which keeps mean and variance by itself."
    ATTENTION = "attention", "It is an attention layer, or yields what an attention multiplies."
    SQUEEZE_EXCITE = (
        "squeeze_excite",
        "It computes a gate: pooled over all locations, then multiplied with the features.",
    )
    MODULATOR = (
        "modulator",
        "It does nothing but scale or shift the features of another branch, as in FiLM or in the couplings of a flow.",
    )
    GATE = (
        "gate",
        "It yields a value between 0 and 1 that multiplies, which behind a normalization would be no gate any more.",
    )
    EMBEDDING = "embedding", "It is a table of embeddings."
    TIED_WEIGHTS = (
        "tied_weights",
        "It shares a weight with another layer, or the layer does that it would be folded into.",
    )
    CHANNEL_AXIS = (
        "channel_axis",
        "No single axis of its output holds the channels; or it normalizes another axis than the channels of the layer "
        "that it would be folded into.",
    )
    BIAS_AXIS = (
        "bias_axis",
        "The layer that it would be folded into adds its bias on an axis before the last one, and some other axis is "
        "as long, or may be: Keras on TensorFlow would add it there.",
    )
    OPAQUE = "opaque", "A layer with weights that is carried over as it is and not looked into."
    OWN_WEIGHTS = (
        "own_weights",
        "A custom layer that is not opened: it uses weights of its own, not in a layer inside it.",
    )
    OWN_LOSSES = "own_losses", "A custom layer that is not opened: it adds losses or metrics of its own."
    OWN_MASK = "own_mask", "A custom layer that is not opened: it does something of its own with masks."
    TRAINING_BRANCH = "training_branch", "A custom layer that is not opened: Python in its call depends on `training`."
    UNTRACEABLE = (
        "untraceable",
        "A custom layer that is not opened: its call cannot be recorded; the detail says at which line it fails.",
    )
    NOT_FAITHFUL = (
        "not_faithful",
        "A custom layer that is not opened: what was recorded of its call computes something else.",
    )
    POSITION = "position", 'The position asked for is "none".'
    RULE = "rule", 'A rule says "skip" or "none".'
    OTHER_PART = "other_part", "It lies in a part of the model that the option parts does not name."
    MONTE_CARLO = (
        "monte_carlo",
        "Dropout or noise that is called with training=True, to be random at inference too; or it stands between a "
        "batch normalization and the layer that that would be folded into.",
    )
    NO_NORMALIZATION_BEHIND = (
        "no_normalization_behind",
        "Dropout whose values do not meet a batch normalization next, with at most linear layers, activations, pooling "
        "and sums between: there it does no harm.",
    )
    REGULARIZER = (
        "regularizer",
        "Its regularizers cannot be scaled: they are neither L1 nor L2, or not arguments of the layer.",
    )
    ONLY_LAYER = "only_layer", "Dropout that is all there is in a model inside the model."
    KEPT = "kept", 'Dropout, with the option dropout="none".'
    STOCHASTIC_DEPTH = (
        "stochastic_depth",
        "Dropout of whole branches, example by example, which goes together with batch normalization.",
    )
    LOCAL_RESPONSE = (
        "local_response",
        'A local response normalization, with the option local_response_normalization="keep".',
    )
    NOT_NUMERIC = "not_numeric", "An input that does not hold dense floating point numbers."
    OPTIONAL = "optional", "An input that may be left out."
    AUGMENTATION = "augmentation", "Noise on the inputs."
    RECURRENT = (
        "recurrent",
        'A recurrent layer, with the option recurrent="none", or with "auto" and fewer than three one upon another.',
    )
    RECURRENT_DROPOUT = (
        "recurrent_dropout",
        'The Dropout within a recurrent layer, which goes only with dropout="all", but for that on the inputs of one '
        "that is normalized.",
    )
    TRAINING = (
        "training",
        "Called with training=True, or inside a model that is: batch normalization would use, or does use, the "
        "statistics of the batch at inference.",
    )
    NEVER_TRAINS = (
        "never_trains",
        "It is frozen, or only called with training=False, so that a batch normalization could only be the identity.",
    )
    UNKNOWN_SUBCLASS = "unknown_subclass", "A subclass of batch normalization, which may compute something else."
    NON_FINITE = (
        "non_finite",
        "Its weights give factors that are not finite, or that the type of the weights cannot hold.",
    )
    INPUT = "input", "It normalizes an input of the model, and no linear layer behind it takes it in."
    NONLINEAR = (
        "nonlinear",
        "Something that does not commute with a scale and a shift is next to it, such as an activation.",
    )
    NEGATIVE_SCALE = (
        "negative_scale",
        "A scale of it is negative, and max pooling or an activation such as ReLU is next to it.",
    )
    ZERO_PADDING = (
        "zero_padding",
        "It has a shift, and zeros are added between it and the layer that it would be folded into.",
    )
    BRANCHES = "branches", "It is added to another branch, or joined with one, that cannot take in the same scale."
    ALIGNMENT = (
        "alignment",
        "A sum of parallel linear branches that move over their input in different strides, or look at places that no "
        "one window has; or where they look depends on a size that is open.",
    )
    DEARER = (
        "dearer",
        "A sum of parallel linear branches for which one layer would multiply more often than all of them together.",
    )
    OTHER_CONSUMERS = (
        "other_consumers",
        "A value that folding it would change goes elsewhere too, or what one of parallel branches yields.",
    )
    SHARED_LAYER = (
        "shared_layer",
        "The layer that it would be folded into is called elsewhere too, without the same normalization there; or one "
        "of parallel branches is.",
    )
    QUANTIZED = (
        "quantized",
        "The layer that it would be folded into holds its weights quantized, or in two parts (LoRA).",
    )
    PRECISION = (
        "precision",
        "The type of the numbers changes between it and the layer that it would be folded into, or that layer has "
        "weights in half precision, which would be rounded once more.",
    )


@dataclasses.dataclass(frozen=True)
class Skip:
    """A call site that is left as it is.

    Attributes:
        site: The address of the call site.
        reason: Why.
        detail: The particulars, for people to read.
    """

    site: str
    reason: Reason
    detail: str


class Refusal(Exception):  # noqa: N818  # nothing went wrong: something is left as it is
    """Something is not to be done.

    Attributes:
        reason: Why.
        detail: The particulars, for people to read.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def at(self, address: str) -> Skip:
        """The skip of a call site for this reason."""
        return Skip(address, self.reason, self.detail)
