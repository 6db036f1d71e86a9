"""What `kerasbn-rewrite` does, once its arguments are read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kerasbn.cli.quiet import stderr_for_python_alone, tensorflow_imported_quietly
from kerasbn.cli.result import Result
from kerasbn.errors import OptionError
from kerasbn.files.formats import Layout, companions_of, format_of
from kerasbn.files.sample_file import check_sample_file, load_sample
from kerasbn.files.staging import check_target, staged
from kerasbn.loading.custom import imported
from kerasbn.loading.kinds import kind_of
from kerasbn.loading.load import read

if TYPE_CHECKING:
    import keras

    from kerasbn.exporters import ExportReport
    from kerasbn.exporters.settings import Quantize
    from kerasbn.planner import Plan


_WIDE = 4096  # paths are never cut, not in a narrow terminal and not in a file


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of the command; the attributes are its arguments.

    `settings` are options of `kerasbn.rewrite`, but for the norm, of which there is whose it is.
    """

    model: Path
    weights: Path | None
    modules: tuple[str, ...]
    custom_objects: tuple[str, ...]
    outputs: tuple[Path, ...]
    settings: Mapping[str, Any]
    data: Path | None
    calibrate: Path | None
    fold: bool | None
    opset: int
    layout: Layout | None
    quantize: Quantize | None
    dry_run: bool
    as_json: bool
    no_verify: bool
    force: bool
    unsafe: bool
    quiet: bool
    verbose: bool

    def run(self) -> None:
        """Read, plan, rewrite, write and verify; nothing is in its place until everything is verified."""
        self._check_paths()
        with tensorflow_imported_quietly(self.verbose), stderr_for_python_alone(self.verbose):
            with self._step(f"Reading {self.model}"):
                source, notes = read(
                    self.model,
                    weights=self.weights,
                    custom_objects=imported(self.modules, self.custom_objects),
                    safe=not self.unsafe,
                )
            data, population = (path and load_sample(path) for path in (self.data, self.calibrate))
            with self._step("Planning"):
                plan = self._plan(source, population if data is None else data)
            reports = [] if self.dry_run else self._write(plan, population, data if population is None else population)
        self._print(Result(self.model, notes, plan, tuple(reports)))

    def _check_paths(self) -> None:
        """Find what is wrong with the paths before TensorFlow is imported, which takes seconds."""
        kind_of(self.model, self.weights)
        for sample in filter(None, (self.data, self.calibrate)):
            check_sample_file(sample)
        for output in self.outputs:
            kind = format_of(output, self.layout)
            check_target(output, overwrite=self.force, companions=companions_of(kind, output, self._layout_of(output)))
            if self.model.resolve().is_relative_to(output.resolve()):
                raise OptionError(
                    f"Output {str(output)!r} is the model itself, or the folder that it lies in; the model is never "
                    "touched. Choose another."
                )
            if sum(output.resolve().is_relative_to(other.resolve()) for other in self.outputs) > 1:
                raise OptionError(
                    f"Output {str(output)!r} is given twice, or lies in another one. Give each a place of its own."
                )

    def _plan(self, source: keras.Model, sample: Any) -> Plan:
        import keras

        from kerasbn.planner import plan

        norm = keras.layers.BatchNormalization() if self.settings["norm"] == "keras" else None
        return plan(source, **{**self.settings, "norm": norm, "data": sample})

    def _write(self, plan: Plan, population: Any, sample: Any) -> list[ExportReport]:
        from kerasbn.exporters.settings import Settings
        from kerasbn.exporters.writing import write_and_verify
        from kerasbn.planner import applied
        from kerasbn.statistics.calibration import calibrate
        from kerasbn.verification.interface import interface_of
        from kerasbn.verification.parity import check_parity
        from kerasbn.verification.samples import reference, settled

        with self._step("Rewriting"):
            result = applied(plan)
        if self.settings["preserve"] and not self.no_verify:
            with self._step("Verifying the rewritten model"):
                ready = settled(plan.model, interface_of(plan.model))
                check_parity(
                    *(plan.model, ready.interface, lambda inputs: reference(result, ready.interface, inputs)),
                    *("the rewritten model", ready.samples),
                    tolerance=1e-5,
                )
        if population is not None:
            with self._step(f"Calibrating on {self.calibrate}"):
                calibrate(result, population)
        with contextlib.ExitStack() as stack:
            kinds = [format_of(output, self.layout) for output in self.outputs]
            temporaries = []
            for output, kind in zip(self.outputs, kinds, strict=True):
                companions = companions_of(kind, output, self._layout_of(output))
                temporaries.append(stack.enter_context(staged(output, overwrite=self.force, companions=companions)))
            reports = []
            for output, kind, temporary in zip(self.outputs, kinds, temporaries, strict=True):
                with self._step(f"Writing and verifying {output}"):
                    settings = Settings(
                        fold=kind != "keras" if self.fold is None else self.fold,
                        merge_branches=self.settings["merge_branches"],
                        custom_layers=self.settings["custom_layers"],
                        verify=not self.no_verify,
                        opset=self.opset,
                        layout=self._layout_of(output),
                        quantize=self.quantize,
                        data=None if self.quantize is None else sample,
                    )
                    reports.append(write_and_verify(result, output, temporary, kind, settings))
            return reports

    def _layout_of(self, output: Path) -> Layout | None:
        """The layout is one of folders; files beside them are as they would be without."""
        return None if output.suffix else self.layout

    @contextlib.contextmanager
    def _step(self, what: str) -> Iterator[None]:
        """Show on the terminal what is going on."""
        if self.quiet:
            yield
        else:
            with Console(stderr=True).status(Text(what)):
                yield

    def _print(self, result: Result) -> None:
        plan, reports = result.plan, result.reports
        if self.as_json:
            outputs = [report.to_dict() for report in reports]
            read = {"reading": list(result.notes), "plan": plan.to_dict(), "outputs": outputs}
            print(json.dumps(read, indent=2))  # noqa: T201
            return
        if self.quiet and not self.dry_run:
            return
        console = Console(width=_WIDE, highlight=False, soft_wrap=True, markup=False, emoji=False)
        for note in result.notes:
            console.print(f"{self.model}: {note}")
        console.print(str(plan) if self.dry_run or self.verbose else _summary(plan))
        if reports:
            console.print(_table_of(reports))


def _summary(plan: Plan) -> str:
    skipped = Counter(skip.reason.value for skip in plan.skips)
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
    return f"{plan.title}{f' ({reasons})' if reasons else ''}\n{plan.outcome}"


def _table_of(reports: Iterable[ExportReport]) -> Table:
    table: Any = Table(box=None, pad_edge=False)
    for heading in ("written", "format", "size", "verified"):
        table.add_column(heading)
    for report in reports:
        verified = "no" if report.max_error is None else f"max error {report.max_error:.1e}"
        table.add_row(str(report.path), report.format, f"{report.bytes / 1e6:.2f} MB", verified)
    return table  # type: ignore[no-any-return]
