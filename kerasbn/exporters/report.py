"""What an export answers with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.text import Text

from kerasbn.pages.content import Change, Files, Page, Part, Section
from kerasbn.plan_table import lines_of, paragraph
from kerasbn.provenance import REPORT_VERSION
from kerasbn.reasons import Reason
from kerasbn.shown import InATerminal


@dataclasses.dataclass(frozen=True)
class ExportReport(InATerminal):
    """What was written, and how well it matches. Made by `kerasbn.export`; print it.

    Example:

    ```python
    report = kerasbn.export(model, "digits.keras")
    assert report.max_error < 1e-4 and not report.kept
    ```

    Attributes:
        path: Where.
        format: `"onnx"`, `"saved_model"`, `"litert"`, `"openvino"` or `"keras"`.
        bytes: The size of the file and what belongs to it beside it, or of all files of the folder.
        seconds: How long it took, verification included.
        nodes: The number of nodes of the graph; of layers in a `.keras` file.
        folded: How many calls of batch normalization were folded into other layers.
        kept: How many were not, by the value of their `Reason`. Empty if folding was not asked for.
        max_error: The greatest difference from the Keras model's outputs, relative to the greatest
            output. `None` if it was not verified.
        quantize: How it was quantized; then `max_error` is that of the quantized file.
        inputs: The type and shape of each input, by name.
        outputs: The type and shape of each output, by name.
        notes: What differs from the model's own inputs and outputs, in words.
        versions: The versions of the packages that wrote it.
    """

    path: Path
    format: str
    bytes: int
    seconds: float
    nodes: int
    folded: int
    kept: dict[str, int]
    max_error: float | None
    quantize: str | None
    inputs: dict[str, str]
    outputs: dict[str, str]
    notes: tuple[str, ...]
    versions: dict[str, str]
    _folding: Change | None = dataclasses.field(default=None, repr=False, compare=False)

    def _text(self, width: int) -> Text:
        kept = ", ".join(f"{count} {reason}" for reason, count in self.kept.items())
        off = "not verified" if self.max_error is None else f"differs by {self.max_error:.1e} of the greatest output"
        quantized = f", {self.quantize}" if self.quantize else ""
        lines = (
            f"{self.format}{quantized}, {decimal(self.bytes)}, {self.nodes} nodes, in {self.seconds:.1f} s; {off}",
            f"batch normalization: {self.folded} folded, {sum(self.kept.values())} kept"
            + (f" ({kept})" if kept else ""),
            *(f"input {name}: {port}" for name, port in self.inputs.items()),
            *(f"output {name}: {port}" for name, port in self.outputs.items()),
            *self.notes,
        )
        return lines_of([paragraph(str(self.path), width, "bold"), *(paragraph(line, width) for line in lines)])

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON: `output` in docs/schemas/report-1.json."""
        told = dataclasses.asdict(dataclasses.replace(self, _folding=None))
        del told["_folding"]
        return {"version": REPORT_VERSION, **told, "path": str(self.path)}

    @property
    def _page(self) -> Page:
        return Page(f"Written: {self.path.name}", (Part(self.path.name, (), sections_of([self])),), self.versions)


def sections_of(reports: Sequence[ExportReport]) -> tuple[Section, ...]:
    """What there is to show of files: the files, and what was folded for them, once where it is the same."""
    foldings: list[tuple[Change, list[str]]] = []
    for report in reports:
        change = report._folding
        if change is None or not change.rows:
            continue
        for known, names in foldings:
            if known == change:
                names.append(report.path.name)
                break
        else:
            foldings.append((change, [report.path.name]))
    reasons = {word: Reason(word).meaning for report in reports for word in report.kept}
    written = Files("What was written", [report.to_dict() for report in reports], reasons)
    return (
        *([written] if reports else []),
        *(dataclasses.replace(change, heading=f"Folded for {', '.join(names)}") for change, names in foldings),
    )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is neither."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
