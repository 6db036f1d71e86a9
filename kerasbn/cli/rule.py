"""What is said of layers on the command line and in its files: rules and learning rates."""

from __future__ import annotations

from typing import Any

import click

from kerasbn.options import RULE_POSITIONS


class Pair(click.ParamType):  # type: ignore[type-arg]  # not generic in older click
    """A glob over layer paths and something else: `GLOB=VALUE`, or in a file also the pair of them."""

    example: str

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The pair, for whatever is given."""
        if isinstance(value, list | tuple):
            glob, given = value if len(value) == 2 else ("", "")
        else:
            glob, _, given = value.rpartition("=")
        found = self._value(given)
        if not isinstance(glob, str) or not glob or found is None:
            self.fail(f"{value!r} is not of the form {self._form}.", param, ctx)
        return glob, found

    _form: str

    def _value(self, given: Any) -> Any:
        """What is given as a value, `None` if it is none."""
        raise NotImplementedError


class Rule(Pair):
    """A glob and a position."""

    name = "rule"
    example = "fc1=after"
    _form = f"GLOB=POSITION, where POSITION is one of {', '.join(RULE_POSITIONS)}"

    def _value(self, given: Any) -> str | None:
        return given if given in RULE_POSITIONS else None


class Rate(Pair):
    """A glob and a factor."""

    name = "rate"
    example = "stage1/*=0.1"
    _form = "GLOB=FACTOR, where FACTOR is a positive number"

    def _value(self, given: Any) -> float | None:
        try:
            factor = float(given)
        except (TypeError, ValueError):
            return None
        return factor if 0 < factor < float("inf") else None
