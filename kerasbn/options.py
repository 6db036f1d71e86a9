"""The options of `kerasbn.plan` and `kerasbn.rewrite`, checked before anything else happens."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, Literal, get_args

from kerasbn.errors import OptionError

Position = Literal["auto", "before", "after", "none"]
RulePosition = Literal["auto", "before", "after", "none", "skip"]
Dropout = Literal["redundant", "all", "none"]
Shared = Literal["per_call", "shared"]
LocalResponse = Literal["keep", "remove"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Checked options.

    Attributes:
        position: Where batch normalization goes relative to the activation.
        rules: Pairs of a glob over layer paths and a position, or `"skip"`. The first match wins.
        norm: The layer whose configuration every inserted layer gets, `None` for kerasbn's own.
        dropout: Which Dropout goes.
        normalize_inputs: Whether the inputs of the model are normalized as well.
        local_response_normalization: Whether it goes.
        learning_rate_scale: What the compiled optimizer's learning rate is multiplied by.
        weight_decay_scale: What weight decay and L1 and L2 regularizers are multiplied by.
        decay_speedup: How many times as fast the learning rate decays.
        data: A sample of inputs that inserted layers take their first statistics from.
        preserve: Whether inserted layers start as the identity at inference.
        shared: Whether a layer called k times gets k normalizations or one.
        fold: Whether batch normalization is folded away instead of inserted.
        copy: Whether the result owns copies of all weights.
    """

    position: Position = "auto"
    rules: tuple[tuple[str, RulePosition], ...] = ()
    norm: Any = None
    dropout: Dropout = "redundant"
    normalize_inputs: bool = False
    local_response_normalization: LocalResponse = "keep"
    learning_rate_scale: float | None = None
    weight_decay_scale: float | None = None
    decay_speedup: float | None = None
    data: Any = dataclasses.field(default=None, repr=False, compare=False)
    preserve: bool = True
    shared: Shared = "per_call"
    fold: bool = False
    copy: bool = True

    def __post_init__(self) -> None:
        _check_choice("position", self.position, get_args(Position))
        _check_choice("dropout", self.dropout, get_args(Dropout))
        _check_choice("shared", self.shared, get_args(Shared))
        _check_choice("local_response_normalization", self.local_response_normalization, get_args(LocalResponse))
        _check_flag("normalize_inputs", self.normalize_inputs)
        _check_flag("preserve", self.preserve)
        _check_flag("fold", self.fold)
        _check_flag("copy", self.copy)
        object.__setattr__(self, "rules", tuple(_checked_rules(self.rules)))
        if isinstance(self.data, str | bytes | int | float):
            raise OptionError(
                f"Option data is {self.data!r}; it must be a sample of inputs: arrays, a dataset, or None."
            )
        for option in ("learning_rate_scale", "weight_decay_scale", "decay_speedup"):
            if getattr(self, option) is not None:
                _check_positive(option, getattr(self, option))
        inserting = self.position in ("before", "after") or self.rules or self.normalize_inputs
        if self.fold and (inserting or self.data is not None):
            raise OptionError(
                "Option fold takes batch normalization out, so nothing is inserted: leave position, rules, "
                "normalize_inputs and data out. To do both, fold what kerasbn.rewrite returns."
            )


def options_from(**keywords: Any) -> Options:
    """Options by keyword.

    Raises:
        OptionError: for a name that is no option, or a value that the option cannot take.
    """
    names = [field.name for field in dataclasses.fields(Options)]
    for keyword in keywords:
        if keyword not in names:
            close = difflib.get_close_matches(keyword, names, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"The options are {', '.join(names)}."
            raise OptionError(f"Unknown option {keyword!r}. {hint}")
    return Options(**keywords)


def _check_choice(option: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"Option {option} is {value!r}; it must be one of {', '.join(map(repr, choices))}.")


def _check_flag(option: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise OptionError(f"Option {option} is {value!r}; it must be True or False.")


def _check_positive(option: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise OptionError(f"Option {option} is {value!r}; it must be a positive number, such as 5.0, or None.")


def _checked_rules(rules: Any) -> Iterable[tuple[str, RulePosition]]:
    remedy = "rules must be pairs such as ('stage1/*', 'after')"
    if isinstance(rules, str | bytes) or not isinstance(rules, Iterable):
        raise OptionError(f"Option rules is {rules!r}; {remedy}.")
    for rule in rules:
        if not isinstance(rule, tuple | list) or len(rule) != 2 or not isinstance(rule[0], str):
            raise OptionError(f"Option rules holds {rule!r}; {remedy}.")
        glob, position = rule
        if position not in get_args(RulePosition):
            choices = ", ".join(map(repr, get_args(RulePosition)))
            raise OptionError(f"Rule {glob!r} has the position {position!r}; it must be one of {choices}.")
        yield glob, position
