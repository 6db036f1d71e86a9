"""`kerasbn-rewrite MODEL --diagnose`: what is wrong with the batch normalization of models; nothing is written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kerasbn.cli.failure import DONE, Failure
from kerasbn.cli.quiet import keras_imported_quietly, stderr_for_python_alone
from kerasbn.cli.screen import terminal
from kerasbn.files.sample_file import check_sample_file, load_sample
from kerasbn.loading.custom import imported
from kerasbn.loading.kinds import kind_of
from kerasbn.loading.load import read

if TYPE_CHECKING:
    from kerasbn.diagnosis.diagnosis import Diagnosis

_TAKEN = frozenset(
    {
        *("models", "diagnose", "weights", "modules", "custom_objects", "unsafe", "data"),
        *("backend", "as_json", "quiet", "verbose"),
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


def diagnosed(models: Sequence[Path], options: dict[str, Any]) -> int:
    """Diagnose models, one after the other, and show what was found.

    Returns:
        The exit status: that of the worst failure, 0 whatever was found.

    Raises:
        KerasBNError: if the sample cannot be read.
    """
    if options["data"] is not None:
        check_sample_file(options["data"])
    told: list[dict[str, Any]] = []
    status = DONE
    with contextlib.closing(_each(models, options)) as each:
        for model, one in each:
            if isinstance(one, Failure):
                status = max(status, one.told())
                told.append(one.to_dict())
            else:
                told.append({"source": str(model), **one.to_dict()})
                if not options["as_json"] and not (options["quiet"] and not one.findings):
                    terminal().print(one)
    if options["as_json"] and (len(told) > 1 or status == DONE):
        print(json.dumps({"models": told} if len(told) > 1 else told[0], indent=2))  # noqa: T201
    return status


def _each(models: Sequence[Path], options: dict[str, Any]) -> Generator[tuple[Path, Diagnosis | Failure], None, None]:
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
                yield model, _diagnosis(model, sample, options)
            except Exception as error:
                yield model, Failure.of(error, model, named=len(models) > 1, verbose=options["verbose"])


def _diagnosis(model: Path, sample: Any, options: dict[str, Any]) -> Diagnosis:
    from kerasbn.diagnosis.diagnosis import diagnose

    known = imported(options["modules"], options["custom_objects"])
    source, _ = read(model, weights=options["weights"], custom_objects=known, safe=not options["unsafe"])
    return diagnose(source, sample)
