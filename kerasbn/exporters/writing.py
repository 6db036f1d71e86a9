"""One export: what is written of a model, where it goes, whether it is right, and what there is to say of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import keras

from kerasbn.errors import KerasBNError, UnsupportedModelError, VerificationError, quoted
from kerasbn.exporters.layouts import complete, place_in
from kerasbn.exporters.report import ExportReport, size_of
from kerasbn.exporters.served import Served, served
from kerasbn.exporters.settings import TOLERANCES, Quantize, Settings
from kerasbn.exporters.writers import quantizer_of, writer_of
from kerasbn.files.formats import Format, companions_of
from kerasbn.provenance import versions
from kerasbn.statistics.data import batches
from kerasbn.turns import in_turn
from kerasbn.verification.interface import Arrays, Interface, input_tensors, interface_of, output_tensors
from kerasbn.verification.parity import check_likeness, check_parity
from kerasbn.verification.precision import other_precisions
from kerasbn.verification.samples import Settled, settled

_MOST_BATCHES = 32


@in_turn()
def write_and_verify(
    model: keras.Model, target: Path, temporary: Path, kind: Format, settings: Settings
) -> ExportReport:
    """Write a model to `temporary`, of the name of `target` where it will be moved to.

    Raises:
        KerasBNError: as `kerasbn.export` does.
    """
    started = time.perf_counter()
    settings.check(kind)
    _check_backend(kind, target)
    with served(model, settings) as what:
        interface = interface_of(what.whole, settings.names, settings.precision)
        measured = list(_batches(what.whole, interface, settings))
        inputs = measured[0] if settings.inputs is None and measured else settings.inputs
        ready = settled(what.whole, interface, inputs) if settings.needs_samples else Settled(interface, (), {})
        task = _Task(what, ready, target, place_in(temporary, settings.layout, kind), kind, settings)
        nodes, max_error = task.quantized(settings.quantize, measured) if settings.quantize else task.written()
        complete(temporary, settings.layout, kind, ready.interface, ready.samples if settings.warmup else ())
    return ExportReport(
        path=target,
        format=kind,
        bytes=sum(size_of(each) for each in (temporary, *companions_of(kind, temporary)) if each.exists()),
        seconds=time.perf_counter() - started,
        nodes=nodes,
        folded=what.folded,
        kept=what.kept,
        max_error=max_error,
        quantize=settings.quantize,
        inputs={port.name: str(port) for port in ready.interface.inputs},
        outputs={port.name: str(port) for port in ready.interface.outputs},
        notes=tuple(_notes(what.whole, ready)),
        versions=versions(),
        _folding=None if what.folding is None else what.folding.picture("What was folded, and why"),
    )


@dataclasses.dataclass(frozen=True)
class _Task:
    """What to write, where, and how.

    Both methods return the number of nodes and the greatest error, `None` where it is not verified.
    """

    what: Served
    ready: Settled
    target: Path
    place: Path
    kind: Format
    settings: Settings

    def written(self) -> tuple[int, float | None]:
        """Write the model, and verify that it computes the same."""
        nodes = self._write(writer_of(self.kind).write)
        whole, interface = self.what.whole, self.ready.interface
        return nodes, self._verify(lambda *candidate: check_parity(whole, interface, *candidate))

    def quantized(self, how: Quantize, measured: list[Arrays]) -> tuple[int, float | None]:
        """Write and verify the model, then quantize it, and verify that it computes something like it."""
        self.written()
        nodes = self._write(quantizer_of(self.kind).quantize, measured or [self.ready.samples[0].inputs])
        return nodes, self._verify(lambda *candidate: check_likeness(*candidate, tolerance=TOLERANCES[how]))

    def _write(self, write: Callable[..., int], *more: Any) -> int:
        try:
            return write(self.what.model, self.ready.interface, self.place, self.settings, *more)
        except (KerasBNError, OSError):
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"Model {self.what.model.name!r} cannot be written as {self.kind}: {quoted(error)}."
            ) from error

    def _verify(self, check: Callable[..., float]) -> float | None:
        if not self.settings.verify:
            return None
        try:
            run = writer_of(self.kind).runner(self.place, self.what.model, self.ready.interface)
        except Exception as error:
            raise VerificationError(
                f"{self.target} cannot be loaded again: {quoted(error)}. Nothing was kept."
            ) from error
        return check(run, str(self.target), self.ready.samples)


def _batches(model: keras.Model, interface: Interface, settings: Settings) -> Iterator[Arrays]:
    """The data that a model is quantized by, by the names of its inputs and in the types that they are served in."""
    if settings.data is None:
        return
    for batch in islice(batches(model, settings.data, "Quantizing"), _MOST_BATCHES):
        yield {
            port.name: keras.ops.convert_to_numpy(array).astype(port.dtype)
            for port, array in zip(interface.inputs, batch, strict=True)
        }


def _check_backend(kind: Format, target: Path) -> None:
    if kind != "keras" and keras.backend.backend() != "tensorflow":
        raise UnsupportedModelError(
            f"A model is written as {kind} under TensorFlow, and Keras runs on {keras.backend.backend()} here. Weights "
            "are the same everywhere: save it, model.save('model.keras'), and export that file: "
            f"KERAS_BACKEND=tensorflow kerasbn-rewrite model.keras -o {target} --position none"
        )


def _notes(model: keras.Model, ready: Settled) -> Iterator[str]:
    """What differs from the model's own interface."""
    for (name, axis), size in ready.fixed.items():
        yield f"axis {axis} of input {name!r} is written as {size}, the one size that the model was seen to run at"
    tensors = (*input_tensors(model).values(), *output_tensors(model).values())
    ports = (*ready.interface.inputs, *ready.interface.outputs)
    for port, tensor in zip(ports, tensors, strict=True):
        if port.dtype != tensor.dtype:
            yield f"{port.name!r} is {port.dtype} instead of {tensor.dtype}"
    if others := other_precisions(model, ready.interface.precision):
        yield f"computed in float32 instead of {', '.join(others)}"
