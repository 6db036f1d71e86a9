"""Rules on the command line and in its files."""

from __future__ import annotations

from typing import Any

import click

from kerasbn.options import RULE_POSITIONS


class Rule(click.ParamType):  # type: ignore[type-arg]  # not generic in older click
    """A glob over layer paths and a position: `GLOB=POSITION`, or in a file also the pair of them."""

    name = "rule"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The pair, for whatever is given."""
        if isinstance(value, list | tuple):
            glob, position = value if len(value) == 2 else ("", "")
        else:
            glob, _, position = value.rpartition("=")
        if not isinstance(glob, str) or not glob or position not in RULE_POSITIONS:
            self.fail(
                f"{value!r} is not of the form GLOB=POSITION, where POSITION is one of {', '.join(RULE_POSITIONS)}.",
                param,
                ctx,
            )
        return glob, position
