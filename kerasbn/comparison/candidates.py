"""What is compared: rewrites by name or by their options, those that come to the same plan once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras

from kerasbn.errors import KerasBNError, OptionError
from kerasbn.options import OF_THE_OPTIMIZER
from kerasbn.planner import Plan, plan
from kerasbn.recipes import BN_X5, BN_X30

Candidates: TypeAlias = Sequence[str | Mapping[str, Any]] | Mapping[str, str | Mapping[str, Any]]

NAMED: Mapping[str, Mapping[str, Any]] = {
    "none": {"position": "none", "dropout": "none", "recurrent": "none", "custom_layers": "keep"},
    **{position: {"position": position} for position in ("auto", "before", "after")},
    "bn-x5": BN_X5,
    "bn-x30": BN_X30,
}
"""What can be compared by name: the model as it is, the positions, the recipes."""

_BESIDE_EDITS = ("norm", "data", "preserve", *OF_THE_OPTIMIZER)
"""The options that do something which the edits of a plan do not show."""


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A rewrite to try.

    Attributes:
        name: Its name.
        options: The options of the rewrite.
        plan: What it does to the model.
        same: The names of the others that come to the same plan.
    """

    name: str
    options: Mapping[str, Any]
    plan: Plan
    same: tuple[str, ...] = ()


def candidates_of(model: keras.Model, given: Any) -> list[Candidate]:
    """The candidates, those that come to the same plan as the one ahead of them put together with it.

    Raises:
        OptionError: if something is no candidate, or there is nothing to compare.
        UnsupportedModelError: if the model cannot be rewritten.
    """
    found: list[Candidate] = []
    for name, options in _named(given):
        candidate = Candidate(name, options, _planned(model, name, options))
        twin = next((each for each in found if _is_same(each.plan, candidate.plan)), None)
        if twin is None:
            found.append(candidate)
        else:
            found[found.index(twin)] = dataclasses.replace(twin, same=(*twin.same, name))
    if len(found) == 1:
        (only,) = found
        names = ", ".join((only.name, *only.same))
        raise OptionError(
            f"The candidates {names} all come to one plan for model {model.name!r}, so there is nothing to compare: "
            f"{only.plan.outcome} print(kerasbn.plan(model)) tells why; give other candidates, such as ('none', "
            "{'rules': [('*', 'after')]})."
        )
    return found


def _named(given: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    pairs = list(_pairs(given))
    names = [name for name, _ in pairs]
    if len(set(names)) < max(len(names), 2):
        raise OptionError(f"Option candidates is {given!r}; it must be at least two different ones.")
    yield from pairs


def _pairs(given: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise OptionError(f"Option candidates is {given!r}; it must be several, such as ('none', 'after').")
    named = isinstance(given, Mapping)
    for key, candidate in given.items() if isinstance(given, Mapping) else enumerate(given):
        if isinstance(candidate, str) and candidate in NAMED:
            options = NAMED[candidate]
        elif isinstance(candidate, Mapping):
            options = candidate
        else:
            names = ", ".join(map(repr, NAMED))
            raise OptionError(
                f"Option candidates holds {candidate!r}; a candidate is one of {names}, or a dictionary of options of "
                "kerasbn.rewrite, such as {'position': 'after', 'dropout': 'all'}."
            )
        yield str(key) if named else _name_of(candidate), options


def _name_of(candidate: str | Mapping[str, Any]) -> str:
    if isinstance(candidate, str):
        return candidate
    known = (name for name, options in NAMED.items() if options == candidate)
    return next(known, None) or ", ".join(f"{name}={value!r}" for name, value in candidate.items()) or "{}"


def _planned(model: keras.Model, name: str, options: Mapping[str, Any]) -> Plan:
    if refused := [option for option in ("copy", "fold") if option in options]:
        raise OptionError(
            f"Candidate {name!r} has the option {refused[0]}, which is not for training a copy of the model. "
            "Leave it out."
        )
    try:
        return plan(model, **options)
    except KerasBNError as error:
        raise type(error)(f"Candidate {name!r}: {error}") from error


def _is_same(one: Plan, other: Plan) -> bool:
    pairs = ((dict(one.options)[name], dict(other.options)[name]) for name in _BESIDE_EDITS)
    return one.edits == other.edits and all(mine is its or _are_equal(mine, its) for mine, its in pairs)


def _are_equal(mine: Any, its: Any) -> bool:
    """Whether two values of an option are equal; arrays and layers are so only if they are one."""
    return all(isinstance(each, bool | int | float | tuple) for each in (mine, its)) and bool(mine == its)
