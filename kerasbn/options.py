"""The options of `kerasbn.plan` and `kerasbn.rewrite`: declared once, and checked before anything else happens.

`Options` is the one declaration. The signatures of the verbs, the checks, what the command line
offers and the keys of its configuration file all follow from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypedDict, cast, get_args, get_origin, get_type_hints

from kerasbn.errors import OptionError

Position = Literal["auto", "before", "after", "none"]
Existing = Literal["keep", "replace", "remove"]
RulePosition = Literal["auto", "before", "after", "none", "skip", "keep", "replace", "remove"]
Recurrent = Literal["auto", "sequence_wise", "none"]
CustomLayers = Literal["open", "keep"]


class Options(TypedDict, total=False):
    """Options by name. Once checked, all of them are there."""

    position: Position
    """Where batch normalization goes relative to the activation."""
    rules: Sequence[tuple[str, RulePosition]]
    """Pairs of a glob over layer paths and a position, `"skip"`, or what becomes of existing normalization there."""
    norm: Any
    """The layer whose configuration every inserted layer gets, `None` for kerasbn's own."""
    existing: Existing
    """What becomes of normalization that is there already."""
    recurrent: Recurrent
    """Whether the input products of recurrent layers are normalized."""
    dropout: Literal["redundant", "all", "none"]
    """Which Dropout goes."""
    custom_layers: CustomLayers
    """Whether the user's own layers that hold linear layers are opened."""
    parts: Sequence[str] | None
    """The parts of a model that trains in its own way that are rewritten, `None` for all."""
    normalize_inputs: bool
    """Whether the inputs of the model are normalized as well."""
    local_response_normalization: Literal["keep", "remove"]
    """Whether it goes."""
    learning_rate_scale: float | None
    """What the compiled optimizer's learning rate is multiplied by."""
    weight_decay_scale: float | None
    """What weight decay and L1 and L2 regularizers are multiplied by."""
    decay_speedup: float | None
    """How many times as fast the learning rate decays."""
    rates: Sequence[tuple[str, float]]
    """Pairs of a glob over layer paths and what the learning rate is multiplied by. The first match wins."""
    decay_exclude: Sequence[str]
    """Kinds of weights, `"normalization"` or `"bias"`, and globs over layer paths that weight decay leaves out."""
    l2: float | None
    """The strength of L2 for kernels that have no regularizer."""
    data: Any
    """A sample of inputs that inserted layers take their first statistics from."""
    inputs: Any
    """A batch of inputs, for a subclassed model of which it does not show what it is called on."""
    preserve: bool
    """Whether inserted layers start as the identity at inference."""
    shared: Literal["auto", "per_call", "shared"]
    """Whether a layer called k times gets k normalizations or one."""
    fold: bool
    """Whether batch normalization is folded away instead of inserted."""
    merge_branches: bool
    """Whether, with fold, parallel linear branches become one layer."""
    copy: bool
    """Whether the result owns copies of all weights."""


DEFAULTS: Options = {
    "position": "auto",
    "rules": (),
    "norm": None,
    "existing": "keep",
    "recurrent": "auto",
    "dropout": "redundant",
    "custom_layers": "open",
    "parts": None,
    "normalize_inputs": False,
    "local_response_normalization": "keep",
    "learning_rate_scale": None,
    "weight_decay_scale": None,
    "decay_speedup": None,
    "rates": (),
    "decay_exclude": (),
    "l2": None,
    "data": None,
    "inputs": None,
    "preserve": True,
    "shared": "auto",
    "fold": False,
    "merge_branches": True,
    "copy": True,
}

OF_THE_OPTIMIZER: tuple[
    Literal["learning_rate_scale", "weight_decay_scale", "decay_speedup", "rates", "decay_exclude"], ...
] = ("learning_rate_scale", "weight_decay_scale", "decay_speedup", "rates", "decay_exclude")
"""The options that change the compiled optimizer."""

KINDS_OF_WEIGHTS = ("normalization", "bias")
"""What weight decay can leave out by kind."""

RULE_POSITIONS: tuple[str, ...] = get_args(RulePosition)
"""The positions that a rule can ask for."""

OF_EXISTING: tuple[str, ...] = get_args(Existing)
"""What a rule can ask for that is about normalization which is there already."""

_TYPES: Mapping[str, Any] = get_type_hints(Options)


def choices(option: str) -> tuple[str, ...]:
    """The values that an option of words can take."""
    return get_args(_TYPES[option])


def checked(given: Mapping[str, Any]) -> Options:
    """All options, those that were given and the defaults of the others. They cannot be changed.

    Raises:
        OptionError: for a name that is no option, or a value that the option cannot take.
    """
    check_names(given)
    options = {**DEFAULTS, **given}
    for name, value in options.items():
        _check(name, value)
    options["rules"] = tuple(_checked_rules(options["rules"]))
    options["rates"] = tuple(_checked_rates(options["rates"]))
    options["decay_exclude"] = tuple(_checked_exclusions(options["decay_exclude"]))
    inserting = (
        *(options["position"] in ("before", "after"), options["rules"], options["recurrent"] == "sequence_wise"),
        *(options["normalize_inputs"], options["data"] is not None, options["existing"] != "keep"),
    )
    if options["fold"] and any(inserting):
        raise OptionError(
            "Option fold takes batch normalization out, so nothing is inserted: leave position, rules, existing, "
            "recurrent, normalize_inputs and data out. To do both, fold what kerasbn.rewrite returns."
        )
    return cast("Options", MappingProxyType(options))


def changes_existing(options: Options, what: Existing | None = None) -> bool:
    """Whether normalization that is there already is to become something else somewhere, or just this."""
    asked = {options["existing"], *(position for _, position in options["rules"])}
    return not asked.isdisjoint({"replace", "remove"} if what is None else {what})


def check_names(names: Iterable[str]) -> None:
    """Refuse what is no option.

    Raises:
        OptionError: for the first name that is none, with the option that is closest to it.
    """
    for name in names:
        if name not in DEFAULTS:
            close = difflib.get_close_matches(name, DEFAULTS, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"The options are {', '.join(DEFAULTS)}."
            raise OptionError(f"Unknown option {name!r}. {hint}")


def _check(option: str, value: Any) -> None:
    """Refuse a value that is not of the declared type of an option."""
    declared = _TYPES[option]
    if get_origin(declared) is Literal and value not in get_args(declared):
        raise OptionError(
            f"Option {option} is {value!r}; it must be one of {', '.join(map(repr, get_args(declared)))}."
        )
    if declared is bool and not isinstance(value, bool):
        raise OptionError(f"Option {option} is {value!r}; it must be True or False.")
    if declared == float | None and value is not None and not _is_positive(value):
        raise OptionError(f"Option {option} is {value!r}; it must be a positive number, such as 5.0, or None.")
    if (
        option == "parts"
        and value is not None
        and (
            isinstance(value, str)
            or not isinstance(value, Iterable)
            or not all(isinstance(each, str) for each in value)
        )
    ):
        raise OptionError(f"Option parts is {value!r}; it must be names of attributes, such as ('encoder',), or None.")
    if option == "data" and isinstance(value, str | bytes | int | float):
        raise OptionError(f"Option data is {value!r}; it must be a sample of inputs: arrays, a dataset, or None.")


def _is_positive(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < float("inf")


def _checked_rules(rules: Any) -> Iterator[tuple[str, RulePosition]]:
    remedy = "rules must be pairs such as ('stage1/*', 'after')"
    if isinstance(rules, str | bytes) or not isinstance(rules, Iterable):
        raise OptionError(f"Option rules is {rules!r}; {remedy}.")
    for rule in rules:
        if not isinstance(rule, tuple | list) or len(rule) != 2 or not isinstance(rule[0], str):
            raise OptionError(f"Option rules holds {rule!r}; {remedy}.")
        glob, position = rule
        if position not in RULE_POSITIONS:
            listed = ", ".join(map(repr, RULE_POSITIONS))
            raise OptionError(f"Rule {glob!r} has the position {position!r}; it must be one of {listed}.")
        yield glob, position


def _checked_rates(rates: Any) -> Iterator[tuple[str, float]]:
    remedy = "rates must be pairs such as ('stage1/*', 0.1)"
    if isinstance(rates, str | bytes | Mapping) or not isinstance(rates, Iterable):
        raise OptionError(f"Option rates is {rates!r}; {remedy}.")
    for rate in rates:
        if not isinstance(rate, tuple | list) or len(rate) != 2 or not isinstance(rate[0], str):
            raise OptionError(f"Option rates holds {rate!r}; {remedy}.")
        glob, factor = rate
        if not _is_positive(factor):
            raise OptionError(
                f"The rate for {glob!r} is {factor!r}; it must be a positive number, such as 0.1. To have layers not "
                "learn at all, set layer.trainable = False before the rewrite."
            )
        yield glob, float(factor)


def _checked_exclusions(exclusions: Any) -> Iterable[str]:
    if isinstance(exclusions, str | bytes) or not isinstance(exclusions, Iterable):
        raise OptionError(
            f"Option decay_exclude is {exclusions!r}; it must be kinds and globs, such as ('normalization', 'bias')."
        )
    found = tuple(exclusions)
    for each in found:
        if not isinstance(each, str):
            raise OptionError(
                f"Option decay_exclude holds {each!r}; it must be {', '.join(map(repr, KINDS_OF_WEIGHTS))}, or a glob "
                "over layer paths."
            )
    return found
