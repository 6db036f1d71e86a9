"""The normalization to insert.

With moving_mean = 0, moving_variance = 1 - epsilon, gamma = sqrt(moving_variance + epsilon) = 1 and
beta = b it starts, at inference, as the exact identity on W x + b, where the bias b is taken from
the linear layer right ahead of it:

    BN(y) = gamma (y - moving_mean) / sqrt(moving_variance + epsilon) + beta = y + b,   y = W x

By default the moving statistics are then those of the batches alone: the first batch replaces what
they started from (`zero_debias`), unless that was measured on a sample. With a momentum of 0.95 they
follow the weights more closely than with Keras's 0.99, and one batch counts for little all the same
(docs/reproduce/moving_statistics.md). Where the optimizer accumulates gradients over several batches, the moving
statistics take these at once.
"""

from __future__ import annotations

import dataclasses

import keras

from kerasbn import _keras
from kerasbn.catalog.normalization import identity_weights, infers_as_known
from kerasbn.catalog.roles import NORMALIZING, role_of
from kerasbn.errors import OptionError, quoted
from kerasbn.facts.facts import Facts
from kerasbn.graph.clone import constructor_arguments, float_policy, make
from kerasbn.graph.model import LayerSpec, Value, core_of
from kerasbn.options import Options, changes_existing
from kerasbn.reasons import Reason, Refusal
from kerasbn.serializable.batch_normalization import MOMENTUM_WHERE_INSERTED, BatchNormalization


@dataclasses.dataclass(frozen=True)
class Prototype:
    """The layer whose configuration every inserted layer gets.

    Attributes:
        layer: The layer.
        preserve: Whether those made after it start as the identity at inference.
        known: Whether it is a batch normalization that computes at inference what these do.
    """

    layer: keras.layers.Layer
    preserve: bool
    known: bool

    @classmethod
    def asked_for(cls, facts: Facts, options: Options, *, default: keras.layers.Layer | None = None) -> Prototype:
        """That of the options.

        Args:
            facts: The facts about the graph.
            options: The options.
            default: The layer where they name none. Defaults to `None`: the one that trains best.

        Raises:
            OptionError: if `norm` is not a layer instance that normalizes, or cannot start as `preserve` or `data`
                ask for.
        """
        norm = options["norm"]
        if norm is None:
            norm = default or BatchNormalization(
                momentum=MOMENTUM_WHERE_INSERTED,
                zero_debias=options["data"] is None,
                accumulate=facts.accumulation,
            )
        if not isinstance(norm, keras.layers.Layer):
            raise OptionError(
                f"Option norm is {norm!r}; it must be a layer instance, such as keras.layers.BatchNormalization(), "
                "or None."
            )
        if _keras.is_keras_own(type(norm)) and role_of(norm) not in NORMALIZING:
            raise OptionError(
                f"Option norm is a {type(norm).__name__}, which normalizes nothing; give a normalization, such as "
                "keras.layers.BatchNormalization(), or None."
            )
        is_batch = isinstance(norm, keras.layers.BatchNormalization)
        if options["data"] is not None and not is_batch and not changes_existing(options, "replace"):
            raise OptionError(
                f"Option data is given, but norm is a {type(norm).__name__}, which keeps no statistics; leave data out."
            )
        if options["data"] is not None and options["preserve"] and is_batch and not (norm.center and norm.scale):
            raise OptionError(
                "Option norm has center=False or scale=False, so it cannot start from measured statistics and compute "
                "what the source does; give it both, or pass preserve=False."
            )
        known = cls._is_known(norm)
        if options["preserve"] and isinstance(norm, keras.layers.BatchNormalization) and not known:
            raise OptionError(
                f"Option norm is a {type(norm).__name__}, a batch normalization that computes something of its own at "
                "inference, so it cannot start as the identity; pass preserve=False, or another norm."
            )
        return cls(norm, options["preserve"], known)

    @staticmethod
    def _is_known(norm: keras.layers.Layer) -> bool:
        try:
            make(LayerSpec(type(norm), constructor_arguments(norm)))
            return infers_as_known(norm)
        except Exception as error:
            raise OptionError(
                f"Option norm is a {type(norm).__name__}, which cannot be made again from its configuration: "
                f"{quoted(error.__context__ or error)}. Give the class a get_config that its __init__ understands, or "
                "pass another norm."
            ) from error

    @property
    def takes_bias(self) -> bool:
        """Whether the bias of a linear layer can become its beta."""
        return self.known and bool(self.layer.center)

    def check(self, value: Value, axis: int) -> None:
        """Refuse a value that it cannot normalize, such as one whose channels do not go into groups."""
        if self.known:
            return
        tried(self.named("tried", axis, value), value)

    def named(
        self,
        name: str,
        axis: int,
        value: Value,
        *,
        like: keras.layers.Layer | None = None,
        bias: keras.Variable | None = None,
    ) -> LayerSpec:
        """A normalization to insert.

        Args:
            name: Its name.
            axis: The axis of the channels.
            value: What it normalizes; what it yields is of the same type.
            like: The layer that it takes its dtype policy from, if that yields values of that type, and
                whether it is frozen. Defaults to `None`: there is none.
            bias: What its beta starts from, if it preserves. Defaults to `None`: zero.
        """
        config = constructor_arguments(self.layer)
        config["name"] = name
        if isinstance(config.get("axis"), int):
            config["axis"] = axis
        policy = None
        if like is not None:
            config["trainable"] = like.trainable
            policy = float_policy(like)
        same = policy is not None and policy.compute_dtype == value.spec.dtype
        config["dtype"] = policy if same else _policy_for(value.spec.dtype)
        values = identity_weights(self.layer, bias) if self.preserve and self.known else {}
        return LayerSpec(type(self.layer), config, values=values)


def tried(spec: LayerSpec, value: Value) -> keras.layers.Layer:
    """A layer like one to be, called on a tensor like a value, of its own: one of the source's would record the call.

    Raises:
        Refusal: if it cannot be called on that, or changes the shape.
    """
    kind = core_of(spec).cls.__name__
    given = keras.KerasTensor(value.shape, value.spec.dtype)
    try:
        layer = make(spec)
        layer(given)
        outputs = keras.Operation.compute_output_spec(layer, given)  # by its call, whatever it says of shapes
    except Exception as error:
        raise Refusal(Reason.NORM, f"{kind} cannot normalize it: {quoted(error)}") from error
    if tuple(outputs.shape) != value.shape:
        raise Refusal(Reason.NORM, f"{kind} makes {tuple(outputs.shape)} of {value.shape}")
    return layer


def _policy_for(dtype: str) -> str:
    """The policy of a layer that yields what it gets, whatever the policy for new layers is in this thread."""
    return f"mixed_{dtype}" if dtype in ("float16", "bfloat16") else dtype
