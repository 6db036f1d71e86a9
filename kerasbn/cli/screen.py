"""What is said on stdout: in colours and at the width of a terminal, elsewhere plain and as wide as it takes."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from kerasbn.cli.failure import Failure
from kerasbn.cli.reporting import document
from kerasbn.cli.result import Forecast, Result
from kerasbn.plan_table import Row, lines_of, paragraph, table_of

if TYPE_CHECKING:
    from kerasbn.exporters import ExportReport

_WIDEST = 4096
_OUTPUT = ("format", "BN inserted", "folded", "kept")
_WRITTEN = (*_OUTPUT, "size", "max error")


@dataclasses.dataclass
class Screen:
    """What is said in one run: of each model as it comes, and of all outputs in the end. It holds no models.

    Attributes:
        several: Whether there are several models.
        as_json: Whether all of it is said in JSON, in the end.
        quiet: Whether nothing is said of what was done.
        verbose: Whether whole plans are shown.
    """

    several: bool
    as_json: bool
    quiet: bool
    verbose: bool
    _done: list[bool] = dataclasses.field(default_factory=list)
    _told: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    _rows: list[Row] = dataclasses.field(default_factory=list)
    _headings: tuple[str, ...] = _OUTPUT

    def add(self, one: Result | Failure) -> None:
        """Say what came of a model."""
        self._done.append(isinstance(one, Result))
        if self.as_json:
            self._told.append(one.to_dict())
        elif isinstance(one, Result) and not self.quiet:
            self._show(one)

    def end(self) -> None:
        """Say what came of all of them."""
        if self.as_json and (self.several or "plan" in self._told[0]):
            print(document(self._told, several=self.several))  # noqa: T201
        if self._rows:
            console = terminal()
            if self.several:
                console.print(f"{sum(self._done)} of {len(self._done)} models done\n")
            console.print(table_of((*self._headings, "output"), self._rows, console.width))

    def _show(self, result: Result) -> None:
        console = terminal()
        width = console.width
        if self.several:
            console.print(Text(str(result.model), "bold underline"))
        for note in result.notes:
            console.print(paragraph(f"{result.model}: {note}", width))
        console.print(result.plan if self.verbose else _summary(result, width))
        console.print()
        for text in _folding(result, width):
            console.print(text)
            console.print()
        self._headings = _WRITTEN if result.reports else _OUTPUT
        self._rows += [_row(result, output) for output in result.outputs]


def terminal() -> Console:
    """Nothing on it is markup, and no line is cut."""
    width = None if sys.stdout.isatty() else _WIDEST
    return Console(width=width, highlight=False, soft_wrap=True, markup=False, emoji=False)


def _summary(result: Result, width: int) -> Text:
    plan = result.plan
    skipped = Counter(skip.reason.value for skip in plan.skips)
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
    title = f"{plan.title}{f' ({reasons})' if reasons else ''}"
    return lines_of([paragraph(title, width, "bold"), paragraph(plan.outcome, width)])


def _folding(result: Result, width: int) -> Iterator[Text]:
    """What folding would leave in the outputs that get it, which is the same in all of them."""
    from kerasbn.planner import COLUMNS, row_of

    if folded := next((each.folding for each in result.forecasts if each.folding.outcome), None):
        yield lines_of([paragraph("Folded for serving", width, "bold"), paragraph(folded.outcome, width)])
        if folded.left:
            yield table_of(COLUMNS, [row_of(skip) for skip in folded.left], width)


def _row(result: Result, output: ExportReport | Forecast) -> Row:
    inserted = sum(edit.kind == "insert" for edit in result.plan.edits)
    kept = sum(output.kept.values()) if output.folded or output.kept else result.norms
    counts = (output.format, str(inserted), str(output.folded), str(kept))
    if isinstance(output, Forecast):
        return (*counts, str(output.path))
    error = "unverified" if output.max_error is None else f"{output.max_error:.1e}"
    return (*counts, f"{output.bytes / 1e6:.2f} MB", error, str(output.path))
