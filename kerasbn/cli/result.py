"""What came of one model: what the screen and the reports are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasbn.diagnosis.diagnosis import Diagnosis
    from kerasbn.exporters import ExportReport
    from kerasbn.pages.content import Change
    from kerasbn.planner import Plan
    from kerasbn.reasons import Skip


@dataclasses.dataclass(frozen=True)
class Folding:
    """What folding would do.

    Attributes:
        folded: How many calls of batch normalization would be folded into other layers.
        kept: How many would not, by the value of their `Reason`. Empty if folding was not asked for.
        outcome: The same in one line; empty if it was not asked for.
        left: The calls that would not be folded, with their reasons.
        picture: All of it, to be shown on a page; `None` if it was not asked for.
    """

    folded: int
    kept: dict[str, int]
    outcome: str
    left: tuple[Skip, ...]
    picture: Change | None


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What an output of a dry run would get.

    Attributes:
        path: Where it would be written.
        format: Its format.
        folding: What would be folded.
    """

    path: Path
    format: str
    folding: Folding

    @property
    def folded(self) -> int:
        """As in an `ExportReport`."""
        return self.folding.folded

    @property
    def kept(self) -> dict[str, int]:
        """As in an `ExportReport`."""
        return self.folding.kept

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        left = [{"site": skip.site, "reason": skip.reason.value, "detail": skip.detail} for skip in self.folding.left]
        return {
            "path": str(self.path),
            "format": self.format,
            "folded": self.folded,
            "kept": self.kept,
            "left": left,
        }


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one model.

    Attributes:
        model: The path that it was read from.
        notes: What is not quite as in its file.
        plan: What was done to it, or in a dry run would be.
        norms: How many batch normalizations the rewritten model has, before any is folded.
        max_error: How far the rewritten model is from the source, relative to the greatest output; `None` if that was
            not verified.
        reports: What was written of it, output by output.
        forecasts: What would be, in a dry run.
    """

    model: Path
    notes: tuple[str, ...]
    plan: Plan
    norms: int = 0
    max_error: float | None = None
    reports: tuple[ExportReport, ...] = ()
    forecasts: tuple[Forecast, ...] = ()

    @property
    def outputs(self) -> tuple[ExportReport | Forecast, ...]:
        """What was written of it, or would be."""
        return self.reports or self.forecasts

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, ready for JSON: `model` in docs/schemas/report-1.json."""
        return {
            "source": str(self.model),
            "reading": list(self.notes),
            "plan": self.plan.to_dict(),
            "max_error": self.max_error,
            "outputs": [report.to_dict() for report in self.reports],
            "forecasts": [forecast.to_dict() for forecast in self.forecasts],
        }


@dataclasses.dataclass(frozen=True)
class Diagnosed:
    """What was found in one model.

    Attributes:
        model: The path that it was read from.
        notes: What is not quite as in its file.
        diagnosis: What was found.
    """

    model: Path
    notes: tuple[str, ...]
    diagnosis: Diagnosis

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON: `examined` in docs/schemas/report-1.json."""
        return {"source": str(self.model), "reading": list(self.notes), "diagnosis": self.diagnosis.to_dict()}
