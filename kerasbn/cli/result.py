"""What came of one model: what the screen and the reports are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerasbn.exporters import ExportReport
    from kerasbn.planner import Plan


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one model.

    Attributes:
        model: The path that it was read from.
        notes: What is not quite as in its file.
        plan: What was done to it, or in a dry run would be.
        reports: What was written of it, output by output.
    """

    model: Path
    notes: tuple[str, ...]
    plan: Plan
    reports: tuple[ExportReport, ...] = ()
