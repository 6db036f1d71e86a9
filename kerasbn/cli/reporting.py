"""What a run of the command did, as reports: on stdout, or in files of `--report`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasbn.cli.failure import Failure
from kerasbn.cli.result import Diagnosed, Forecast, Result
from kerasbn.errors import OptionError
from kerasbn.files.staging import check_target, staged
from kerasbn.provenance import REPORT_VERSION, versions

if TYPE_CHECKING:
    from kerasbn.pages.content import Change, Part

SUFFIXES = (".html", ".json")


@dataclasses.dataclass
class Reports:
    """The reports on one run. They hold no models.

    Attributes:
        paths: The files.
        several: Whether there are several models.
    """

    paths: tuple[Path, ...]
    several: bool
    _told: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    _parts: list[Part] = dataclasses.field(default_factory=list)
    _done: bool = False

    def check(self, others: Sequence[Path], *, overwrite: bool) -> None:
        """Refuse files that cannot be written, before any work is done.

        Args:
            others: What else is read and written.
            overwrite: Whether existing ones may be replaced.

        Raises:
            OptionError: for a suffix that stands for no kind of report, and a path that has another use.
            ModelFileError: if one exists and may not be replaced, or cannot be written.
        """
        for path in self.paths:
            if path.suffix not in SUFFIXES:
                raise OptionError(f"Report {str(path)!r} has the suffix {path.suffix!r}: use .html or .json.")
            uses = [*others, *self.paths]
            if sum(path.resolve().is_relative_to(other.resolve()) for other in uses) > 1:
                raise OptionError(
                    f"Report {str(path)!r} is given twice, or is or lies in what is read or written besides. Give it "
                    "a place of its own."
                )
            check_target(path, overwrite=overwrite)

    def add(self, one: Result | Diagnosed | Failure) -> None:
        """Take in what came of a model."""
        if not self.paths:
            return
        self._told.append(one.to_dict())
        self._parts.append(_part(one))
        self._done |= not isinstance(one, Failure)

    def write(self, *, overwrite: bool) -> None:
        """Write them, all or none, unless nothing was done at all.

        Raises:
            ModelFileError: if one cannot be written.
        """
        if not self._done:
            return
        with contextlib.ExitStack() as stack:
            for path in self.paths:
                temporary = stack.enter_context(staged(path, overwrite=overwrite))
                text = page(self._parts) if path.suffix == ".html" else document(self._told, several=self.several)
                temporary.write_text(text, encoding="utf-8")


def document(told: Sequence[dict[str, Any]], *, several: bool) -> str:
    """What was done as JSON, as docs/schemas/report-1.json has it."""
    whole = {"models": told} if several else told[0]
    return json.dumps({"version": REPORT_VERSION, "versions": versions(), **whole}, indent=2)


def page(parts: Sequence[Part]) -> str:
    """What was done as a page."""
    from kerasbn.pages.content import Page
    from kerasbn.pages.page import whole

    title = f"Report on {parts[0].heading}" if len(parts) == 1 else f"Report on {len(parts)} models"
    return whole(Page(title, tuple(parts), versions()))


def _part(one: Result | Diagnosed | Failure) -> Part:
    from kerasbn.exporters.report import sections_of
    from kerasbn.pages.content import Part

    if isinstance(one, Failure):
        return Part(str(one.model), (f"Failed: {one.message}",), ())
    read = tuple(f"Read: {note}" for note in one.notes)
    if isinstance(one, Diagnosed):
        return Part(str(one.model), (one.diagnosis.title, *read), (one.diagnosis.picture(),))
    lines = (one.plan.title, *_verified(one), *read)
    sections = (one.plan.picture("What changes, and why"), *sections_of(one.reports), *_foldings(one.forecasts))
    return Part(str(one.model), lines, sections)


def _foldings(forecasts: Sequence[Forecast]) -> Iterator[Change]:
    """What would be folded, each time with all the outputs that it is for."""
    for folding in {id(forecast.folding): forecast.folding for forecast in forecasts}.values():
        names = ", ".join(forecast.path.name for forecast in forecasts if forecast.folding is folding)
        if folding.picture is not None:
            yield dataclasses.replace(folding.picture, heading=f"Folded for {names}")


def _verified(result: Result) -> Iterator[str]:
    if result.max_error is not None:
        error = f"{result.max_error:.1e}"
        yield f"Verified: the rewritten model computes what its source does, with a max error of {error}."
