"""A command whose help has its options by subject, and examples.

In click's own layout, which is ready in milliseconds and needs nothing more to be installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

_BESIDE = 24
"""What an option may be long, for its help to stand beside it."""


class Option(click.Option):
    """An option of a subject.

    Args:
        subject: The heading that it stands under.
    """

    def __init__(self, *args: Any, subject: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.subject = subject


class Command(click.Command):
    """A command whose help has its options by subject, and what else there is to say below them.

    Args:
        usage: What follows the command's name.
        sections: What stands below, by heading: pairs of a term and what it means.
    """

    def __init__(
        self, *args: Any, usage: Sequence[str], sections: Mapping[str, Sequence[tuple[str, str]]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.usage = usage
        self.sections = sections

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """What follows the command's name."""
        return list(self.usage)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, in the order of their subjects; click's own ones are of the last."""
        subjects: dict[str, list[tuple[str, str]]] = {}
        subject = ""
        for parameter in self.get_params(ctx):
            subject = getattr(parameter, "subject", subject)
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                subjects.setdefault(subject, []).append(record)
        for subject, records in subjects.items():
            _write(formatter, subject, records, _BESIDE)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the other sections: what is said of short terms beside them, of long ones below."""
        for heading, rows in self.sections.items():
            _write(formatter, heading, rows, _BESIDE if max(len(term) for term, _ in rows) <= _BESIDE else 0)


def _write(formatter: click.HelpFormatter, heading: str, rows: Sequence[tuple[str, str]], beside: int) -> None:
    with formatter.section(click.style(heading, bold=True)):
        formatter.write_dl(rows, col_max=beside)
