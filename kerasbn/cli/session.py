"""One run of the command: its models one after the other, under one start of Keras."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable, Generator
from pathlib import Path

from kerasbn.cli.failure import DONE, Failure
from kerasbn.cli.job import Job
from kerasbn.cli.outputs import Output, Targets, made
from kerasbn.cli.quiet import keras_imported_quietly, stderr_for_python_alone
from kerasbn.cli.reporting import Reports
from kerasbn.cli.result import Result
from kerasbn.cli.screen import Screen
from kerasbn.errors import OptionError
from kerasbn.progress import steps


@dataclasses.dataclass(frozen=True)
class Session:
    """One run of the command.

    Attributes:
        job: What is done to each model.
        targets: The models, and what is to be written of each.
        reports: The reports on it.
        backend: What Keras runs on, `None` for what Keras itself says.
        as_json: Whether results are shown as JSON.
        quiet: Whether nothing is shown but errors, and in a dry run the plan.
        verbose: Whether everything is.
    """

    job: Job
    targets: Targets
    reports: Reports
    backend: str | None
    as_json: bool
    quiet: bool
    verbose: bool

    def run(self) -> int:
        """Go through the models, and say what comes of each; what fails does not stop the others.

        Returns:
            The exit status: the highest of the models'.

        Raises:
            KerasBNError: if nothing can be done, whatever the models are.
        """
        self.job.check()
        outputs = [output.path for _, each in self.targets.outputs for output in each]
        self.reports.check([*(model for model, _ in self.targets.outputs), *outputs], overwrite=self.job.force)
        _check_backend(self.backend)
        dry = self.job.dry_run
        screen = Screen(self.targets.several, self.as_json, self.quiet and not dry, self.verbose or dry)
        status = DONE
        with contextlib.closing(self._each()) as each:
            for one in each:
                if isinstance(one, Failure):
                    status = max(status, one.told())
                screen.add(one)
                self.reports.add(one)
                del one  # and its model with it, before the next is read
        self.reports.write(overwrite=self.job.force)
        screen.end()
        return status

    def _each(self) -> Generator[Result | Failure, None, None]:
        """What comes of each model, first of those that fail before Keras is imported, which takes seconds."""
        ready: list[tuple[Path, tuple[Output, ...]]] = []
        for model, outputs in self.targets.outputs:
            try:
                self.job.check_model(model, outputs if self.targets.are_there else ())
                ready.append((model, outputs))
            except Exception as error:
                yield self._failure(error, model)
        if not ready:
            return
        samples = self.job.samples()
        with contextlib.ExitStack() as stack:
            if self.targets.folder is not None and not self.job.dry_run:
                stack.enter_context(made(self.targets.folder))
            stack.enter_context(stderr_for_python_alone(self.verbose))
            with steps(1, quiet=self.quiet) as step:
                step("Starting Keras")
                stack.enter_context(keras_imported_quietly(self.verbose, self.backend))
                work = self.job.begin(samples)
            for number, (model, outputs) in enumerate(ready, 1):
                try:
                    with steps(self.job.steps(outputs), quiet=self.quiet) as step:
                        result = work.on(model, outputs, _numbered(step, number, len(ready)))
                except Exception as error:
                    yield self._failure(error, model)
                else:
                    yield result
                    del result
                if number < len(ready):
                    _forget()

    def _failure(self, error: Exception, model: Path) -> Failure:
        return Failure.of(error, model, named=self.targets.several, verbose=self.verbose)


def _check_backend(backend: str | None) -> None:
    if backend is not None and importlib.util.find_spec(backend) is None:
        raise OptionError(
            f"Option --backend: {backend} is not installed. Install it: pip install 'kerasbn[{backend}]'."
        )


def _numbered(step: Callable[[str], None], number: int, count: int) -> Callable[[str], None]:
    """Steps that tell which of several models they are of."""
    return step if count == 1 else lambda what: step(f"{number}/{count}  {what}")


def _forget() -> None:
    """Have the next model as in a run of its own: names that Keras counts up begin anew, the memory is free."""
    import keras

    keras.utils.clear_session()  # which collects garbage as well
