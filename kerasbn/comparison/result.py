"""What came out of a comparison, and all the ways to show it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from kerasbn.comparison.significance import Difference
from kerasbn.pages.content import Page, Part, Scores
from kerasbn.plan_table import lines_of, paragraph, table_of
from kerasbn.provenance import REPORT_VERSION, versions
from kerasbn.shown import InATerminal, figure


@dataclasses.dataclass(frozen=True)
class Row:
    """What came out for a candidate.

    Attributes:
        candidate: Its name.
        same: The names of those that come to the same plan, and were not trained again.
        options: The options to rewrite with, the learning rate that did best among them.
        rate: That learning rate; `None` where the optimizer's own schedule was kept.
        steps: How many steps it was trained.
        scores: The scores then, a seed each.
        history: Those before, by steps.
        behind: How far the mean is behind that of the leader; `None` if it diverged.
        outcome: `"leads"`, `"level"` (no difference is shown), `"behind"` or `"diverged"`.
    """

    candidate: str
    same: tuple[str, ...]
    options: Mapping[str, Any]
    rate: float | None
    steps: int
    scores: tuple[float, ...]
    history: Mapping[int, tuple[float, ...]]
    behind: Difference | None
    outcome: str

    @property
    def median(self) -> float:
        """The median of the scores."""
        return statistics.median(self.scores) if all(map(math.isfinite, self.scores)) else math.nan

    @property
    def is_beaten(self) -> bool:
        """Whether it is shown to be behind, or diverged."""
        return self.outcome in ("behind", "diverged")


@dataclasses.dataclass(frozen=True)
class Comparison(InATerminal):
    """How rewrites of a model do against each other. Made by `kerasbn.compare`.

    Example:

    ```python
    comparison = kerasbn.compare(model, (x, y), validation_data=held_out, rates="compiled", budget=20)
    print(comparison.verdict)
    ```

    Attributes:
        model: The name of the model.
        monitor: What was compared, by its name in the logs.
        seeds: The seeds that each candidate was trained with.
        rows: What came out, in the order in which the candidates were given.
        notes: What else to know.
        seconds: How long training and evaluating took, without what is compiled and the search for rates.
        is_cut: Whether it was interrupted, so that less was trained than asked for.
    """

    model: str
    monitor: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    seconds: float
    is_cut: bool

    @property
    def best(self) -> dict[str, Any]:
        """The options of the best, for `kerasbn.rewrite(model, **comparison.best)`.

        It is the first, in the order in which they were given, of those that none is shown to beat.
        """
        return dict(next(row for row in self.rows if not row.is_beaten).options)

    @property
    def verdict(self) -> str:
        """What the seeds show, in words."""
        level = [row.candidate for row in self.rows if not row.is_beaten]
        behind = [row for row in self.rows if row.outcome == "behind"]
        diverged = [row.candidate for row in self.rows if row.outcome == "diverged"]
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        told = []
        if len(level) > 1:
            told.append(f"no difference that {seeds} show{'' if len(self.seeds) > 1 else 's'} between {_and(level)}")
            told += [f"{row.candidate!r} is behind by {self._shown_behind(row)}" for row in behind]
        elif behind:
            second = min(behind, key=lambda row: (-row.steps, row.behind.value if row.behind else math.inf))
            told.append(f"{level[0]!r} wins by {self._shown_behind(second)} over {second.candidate!r} ({seeds})")
        else:
            told.append(f"{level[0]!r} wins")
        if diverged:
            told.append(f"{_and(diverged)} diverge{'' if len(diverged) > 1 else 's'}")
        return "; ".join(told)

    @property
    def title(self) -> str:
        """The comparison in one line."""
        cut = ", interrupted" if self.is_cut else ""
        return f"Comparison for {self.model!r} by {self.monitor}{cut}: {self.verdict}"

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain data, ready for JSON: `comparison` in docs/schemas/report-1.json."""
        return {
            "version": REPORT_VERSION,
            "model": self.model,
            "monitor": self.monitor,
            "seeds": list(self.seeds),
            "verdict": self.verdict,
            "best": _plain(self.best),
            "interrupted": self.is_cut,
            "seconds": self.seconds,
            "candidates": [
                {
                    "candidate": row.candidate,
                    "same": list(row.same),
                    "options": _plain(row.options),
                    "rate": row.rate,
                    "steps": row.steps,
                    "scores": [_finite(score) for score in row.scores],
                    "history": {str(steps): [*map(_finite, scores)] for steps, scores in row.history.items()},
                    "behind": row.behind and {each: _finite(vars(row.behind)[each]) for each in ("value", "reach")},
                    "outcome": row.outcome,
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
        }

    def plot(self, path: str | Path) -> None:
        """Write the scores by steps as a picture: the median, and the seeds around it.

        Args:
            path: The file; its suffix is the format, `"comparison.png"` or `"comparison.svg"`.

        Raises:
            OptionError: if matplotlib, the extra `kerasbn[plot]`, is missing.
        """
        picture = figure()
        axes = picture.subplots()
        for row in self.rows:
            at = [steps for steps, scores in row.history.items() if all(map(math.isfinite, scores))]
            scores = [row.history[steps] for steps in at]
            axes.plot(at, [*map(statistics.median, scores)], marker=".", label=f"{row.candidate}: {row.outcome}")
            axes.fill_between(at, [*map(min, scores)], [*map(max, scores)], alpha=0.2)
        axes.set(xlabel="steps", ylabel=self.monitor, title=f"The median and range of {len(self.seeds)} seeds")
        axes.legend()
        picture.savefig(path)

    @property
    def _page(self) -> Page:
        scores = Scores("What came out", self._headings, tuple(map(self._cells, self.rows)), self.notes)
        return Page(self.title, (Part(self.model, (), (scores,)),), versions())

    def _text(self, width: int) -> Text:
        parts = (
            paragraph(self.title, width, "bold"),
            table_of(self._headings, [*map(self._cells, self.rows)], width),
            lines_of([paragraph(note, width) for note in self.notes]),
        )
        return lines_of([part for part in parts if part], space=1)

    @property
    def _headings(self) -> tuple[str, ...]:
        return "candidate", "learning rate", "steps", self.monitor, "outcome"

    def _cells(self, row: Row) -> tuple[str, ...]:
        name = row.candidate + (f" (the same: {', '.join(row.same)})" if row.same else "")
        rate = "its schedule" if row.rate is None else f"{row.rate:.2g}"
        spread = f"{row.median:.4g} ({min(row.scores):.4g} to {max(row.scores):.4g})"
        told = row.outcome if row.outcome in ("leads", "diverged") else f"{row.outcome}: {self._shown_behind(row)}"
        return name, rate, str(row.steps), "not finite" if row.outcome == "diverged" else spread, told

    def _shown_behind(self, row: Row) -> str:
        """How far a candidate is behind, with its interval; shares of 1 in points."""
        assert row.behind is not None
        shares = "acc" in self.monitor
        value, reach = (f"{(100 if shares else 1) * each:.2g}" for each in (row.behind.value, row.behind.reach))
        return f"{value} ± {reach}" + (" points" if shares else "")


def _and(names: Sequence[str]) -> str:
    quoted = [*map(repr, names)]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as plain data; of layers and data the name of the class."""
    return {
        name: type(value).__name__ if name in ("norm", "data", "inputs") and value is not None else _listed(value)
        for name, value in options.items()
    }


def _listed(value: Any) -> Any:
    return [*map(_listed, value)] if isinstance(value, list | tuple) else value
