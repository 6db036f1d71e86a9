"""What `kerasbn-rewrite` does to a model, once its arguments are read."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasbn.cli.outputs import Output
from kerasbn.cli.result import Folding, Forecast, Result
from kerasbn.errors import listed
from kerasbn.files.sample_file import check_sample_file, load_sample
from kerasbn.files.staging import staged
from kerasbn.loading.custom import imported
from kerasbn.loading.kinds import kind_of
from kerasbn.loading.load import read

if TYPE_CHECKING:
    import keras

    from kerasbn.exporters import ExportReport
    from kerasbn.exporters.settings import Quantize, Settings
    from kerasbn.freezing import What
    from kerasbn.planner import Plan


@dataclasses.dataclass(frozen=True)
class Job:
    """What is done to each model; the attributes are arguments of the command.

    `settings` are options of `kerasbn.rewrite`, but for the norm, of which there is whose it is; `others` are averaged
    with each model.
    """

    settings: Mapping[str, Any]
    others: tuple[Path, ...]
    weights: Path | None
    modules: tuple[str, ...]
    custom_objects: tuple[str, ...]
    data: Path | None
    calibrate: Path | None
    blend: float
    frozen: tuple[str, ...]
    frozen_statistics: tuple[str, ...]
    fold: bool | None
    opset: int
    quantize: Quantize | None
    dry_run: bool
    no_verify: bool
    force: bool
    unsafe: bool

    def check(self) -> None:
        """Find what is wrong whatever the models are, before Keras is imported, which takes seconds.

        Raises:
            OptionError: if there is no sample where there is to be one.
        """
        for sample in filter(None, (self.data, self.calibrate)):
            check_sample_file(sample)

    def check_model(self, model: Path, outputs: Sequence[Output]) -> None:
        """Find what is wrong with the paths of a model and of its outputs, likewise.

        Raises:
            KerasBNError: naming the path.
        """
        for each in (model, *self.others):
            kind_of(each, self.weights)
            for output in outputs:
                output.check(each, overwrite=self.force)

    def samples(self) -> tuple[Any, Any]:
        """What inserted normalizations start from, and what all of them are calibrated on.

        Raises:
            OptionError: if a sample cannot be read.
        """
        data, population = (path and load_sample(path) for path in (self.data, self.calibrate))
        return data, population

    def begin(self, samples: tuple[Any, Any]) -> Work:
        """Have Keras know what files may name.

        Raises:
            OptionError: if a module cannot be imported.
        """
        return Work(self, imported(self.modules, self.custom_objects), *samples)

    def steps(self, outputs: Sequence[Output]) -> int:
        """How many steps a model takes."""
        if not outputs:
            return 2
        return 3 + self._verifies + (self.calibrate is not None) + (1 if self.dry_run else len(outputs))

    @property
    def _verifies(self) -> bool:
        """Whether the rewritten model is verified, before anything is written of it."""
        return bool(self.settings["preserve"]) and not self.no_verify and not self.dry_run


@dataclasses.dataclass(frozen=True)
class Work:
    """A job, and what all models need for it.

    Attributes:
        job: The job.
        custom_objects: Classes and functions that files name.
        data: The sample that inserted normalizations start from.
        population: The sample that all of them are calibrated on.
    """

    job: Job
    custom_objects: Mapping[str, Any]
    data: Any
    population: Any

    def on(self, model: Path, outputs: Sequence[Output], step: Callable[[str], None]) -> Result:
        """Read, plan, rewrite, write and verify; nothing is in its place until everything is verified.

        Args:
            model: Where the model is.
            outputs: What to write of it.
            step: Called at the beginning of each step with what it is.

        Raises:
            KerasBNError: if any of that cannot be done.
        """
        step(f"Reading {model}")
        source, notes = self._read(model)
        if self.job.others:
            from kerasbn.averaging import averaged

            others = (self._read(path)[0] for path in self.job.others)
            source = averaged(itertools.chain([source], others), self.population)
            notes += (f"Averaged with {listed(map(str, self.job.others))}.",)
        step("Planning")
        plan = self._plan(source)
        if not outputs:
            return Result(model, notes, plan)
        from kerasbn.catalog.norms import norms_in

        rewritten, max_error = self._rewritten(plan, step)
        notes += (*self._calibrated(rewritten, step), *self._frozen(rewritten))
        result = Result(model, notes, plan, len(norms_in(rewritten)), max_error)
        if self.job.dry_run:
            step("Planning what is folded")
            return dataclasses.replace(result, forecasts=self._forecasts(rewritten, outputs))
        return dataclasses.replace(result, reports=self._write(rewritten, outputs, step))

    def _read(self, model: Path) -> tuple[keras.Model, tuple[str, ...]]:
        job = self.job
        return read(model, weights=job.weights, custom_objects=self.custom_objects, safe=not job.unsafe)

    def _plan(self, source: keras.Model) -> Plan:
        import keras

        from kerasbn.planner import plan

        settings = self.job.settings
        norm = keras.layers.BatchNormalization() if settings["norm"] == "keras" else None
        sample = self.population if self.data is None else self.data
        return plan(source, **{**settings, "norm": norm, "data": sample})

    def _rewritten(self, plan: Plan, step: Callable[[str], None]) -> tuple[keras.Model, float | None]:
        """The model, and how far it is from its source, if that is verified."""
        from kerasbn.planner import applied
        from kerasbn.verification.interface import interface_of
        from kerasbn.verification.parity import check_parity
        from kerasbn.verification.samples import reference, settled

        step("Rewriting")
        result, max_error = applied(plan), None
        if self.job._verifies and plan.exact:
            step("Verifying the rewritten model")
            ready = settled(plan.model, interface_of(plan.model))
            max_error = check_parity(
                *(plan.model, ready.interface, lambda inputs: reference(result, ready.interface, inputs)),
                *("the rewritten model", ready.samples),
                tolerance=1e-5,
            )
        return result, max_error

    def _calibrated(self, model: keras.Model, step: Callable[[str], None]) -> Iterator[str]:
        """Calibrate a model, and tell of what is left as it was."""
        if self.population is None:
            return
        from kerasbn.catalog.norms import is_frozen, paths_of_norms
        from kerasbn.statistics.calibration import calibrate

        step(f"Calibrating on {self.job.calibrate}")
        calibrate(model, self.population, blend=self.job.blend)
        if left := [path for norm, path in paths_of_norms(model).items() if is_frozen(norm)]:
            yield f"Frozen, so not calibrated: {listed(left)}."

    def _frozen(self, model: keras.Model) -> Iterator[str]:
        """Freeze what is to be frozen, and tell of it."""
        from kerasbn.freezing import freeze

        globs: dict[What, tuple[str, ...]] = {"all": self.job.frozen, "statistics": self.job.frozen_statistics}
        for what, glob in globs.items():
            if glob:
                frozen = freeze(model, glob, what)
                yield f"Frozen ({what}): {listed(frozen.layers)}."
                yield from frozen.notes

    def _forecasts(self, model: keras.Model, outputs: Sequence[Output]) -> tuple[Forecast, ...]:
        from kerasbn.exporters.served import served
        from kerasbn.planner import normalizations_left

        settings = [self._settings(output) for output in outputs]
        for output, each in zip(outputs, settings, strict=True):
            each.check(output.format)
        foldings: dict[bool, Folding] = {}
        for each in settings:
            if each.fold not in foldings:  # all outputs that are folded are folded alike
                with served(model, each) as what:
                    told: tuple[Any, ...] = ("", (), None)
                    if plan := what.folding:
                        told = (plan.outcome, normalizations_left(plan), plan.picture("What would be folded, and why"))
                    foldings[each.fold] = Folding(what.folded, what.kept, *told)
        return tuple(
            Forecast(output.path, output.format, foldings[each.fold])
            for output, each in zip(outputs, settings, strict=True)
        )

    def _write(
        self, model: keras.Model, outputs: Sequence[Output], step: Callable[[str], None]
    ) -> tuple[ExportReport, ...]:
        from kerasbn.exporters.writing import write_and_verify

        with contextlib.ExitStack() as stack:
            temporaries = [
                stack.enter_context(staged(output.path, overwrite=self.job.force, companions=output.companions))
                for output in outputs
            ]
            reports = []
            for output, temporary in zip(outputs, temporaries, strict=True):
                step(f"Writing and verifying {output.path}")
                reports.append(write_and_verify(model, output.path, temporary, output.format, self._settings(output)))
            return tuple(reports)

    def _settings(self, output: Output) -> Settings:
        from kerasbn.exporters.settings import Settings

        job = self.job
        sample = self.data if self.population is None else self.population
        return Settings(
            fold=output.format != "keras" if job.fold is None else job.fold,
            merge_branches=job.settings["merge_branches"],
            custom_layers=job.settings["custom_layers"],
            verify=not job.no_verify,
            opset=job.opset,
            layout=output.layout,
            quantize=job.quantize,
            data=None if job.quantize is None else sample,
        )
