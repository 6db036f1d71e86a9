"""`kerasbn-rewrite MODEL --diagnose`: what is wrong with the batch normalization of models."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kerasbn.cli.failure import DONE, Failure
from kerasbn.cli.quiet import keras_imported_quietly, stderr_for_python_alone
from kerasbn.cli.reporting import Reports, document
from kerasbn.cli.result import Diagnosed
from kerasbn.cli.screen import terminal
from kerasbn.files.sample_file import check_sample_file, load_sample
from kerasbn.loading.custom import imported
from kerasbn.loading.kinds import kind_of
from kerasbn.loading.load import read

_TAKEN = frozenset(
    {
        *("models", "diagnose", "weights", "modules", "custom_objects", "unsafe", "data"),
        *("report_files", "force", "backend", "as_json", "quiet", "verbose"),
    }
)


def check_options(context: click.Context) -> None:
    """Refuse options that have nothing to do with a diagnosis.

    Raises:
        UsageError: naming the first.
    """
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in _TAKEN and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"'--diagnose' only looks, and takes no {parameter.get_error_hint(context)}.")


def diagnosed(models: Sequence[Path], reports: Reports, options: dict[str, Any]) -> int:
    """Diagnose models, one after the other, and show what was found.

    Returns:
        The exit status: that of the worst failure, 0 whatever was found.

    Raises:
        KerasBNError: if the sample cannot be read, or a report cannot be written.
    """
    if options["data"] is not None:
        check_sample_file(options["data"])
    reports.check(models, overwrite=options["force"])
    told: list[dict[str, Any]] = []
    status = DONE
    with contextlib.closing(_each(models, options)) as each:
        for one in each:
            if isinstance(one, Failure):
                status = max(status, one.told())
            elif not options["as_json"] and not (options["quiet"] and not one.diagnosis.findings):
                terminal().print(one.diagnosis)
            told.append(one.to_dict())
            reports.add(one)
    reports.write(overwrite=options["force"])
    if options["as_json"] and (len(told) > 1 or status == DONE):
        print(document(told, several=len(told) > 1))  # noqa: T201
    return status


def _each(models: Sequence[Path], options: dict[str, Any]) -> Generator[Diagnosed | Failure, None, None]:
    """What comes of each model, under one start of Keras."""
    sample = options["data"] and load_sample(options["data"])
    with contextlib.ExitStack() as stack:
        ready = False
        for model in models:
            try:
                kind_of(model, options["weights"])
                if not ready:
                    stack.enter_context(stderr_for_python_alone(options["verbose"]))
                    stack.enter_context(keras_imported_quietly(options["verbose"], options["backend"]))
                    ready = True
                yield _examined(model, sample, options)
            except Exception as error:
                yield Failure.of(error, model, named=len(models) > 1, verbose=options["verbose"])


def _examined(model: Path, sample: Any, options: dict[str, Any]) -> Diagnosed:
    from kerasbn.diagnosis.diagnosis import diagnose

    known = imported(options["modules"], options["custom_objects"])
    source, notes = read(model, weights=options["weights"], custom_objects=known, safe=not options["unsafe"])
    return Diagnosed(model, tuple(notes), diagnose(source, sample))
