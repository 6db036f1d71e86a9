"""Diagnose the batch normalization of a model."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import keras
from rich.text import Text

from kerasbn import _keras
from kerasbn.diagnosis.kinds import Finding, Kind
from kerasbn.diagnosis.measured import of_data, of_steps
from kerasbn.diagnosis.structure import of_structure
from kerasbn.diagnosis.subject import Subject
from kerasbn.diagnosis.training import of_training
from kerasbn.diagnosis.watching import watched
from kerasbn.pages.content import Findings, Page, Part
from kerasbn.plan_table import Row, lines_of, paragraph, table_of
from kerasbn.provenance import REPORT_VERSION, versions
from kerasbn.shown import InATerminal
from kerasbn.statistics.data import check_steps, first_batch
from kerasbn.turns import in_turn

COLUMNS = ("layer", "finding", "detail and remedy")


@dataclasses.dataclass(frozen=True)
class Diagnosis(InATerminal):
    """What is wrong with the batch normalization of a model. Made by `kerasbn.diagnose`.

    Example:

    ```python
    diagnosis = kerasbn.diagnose(model, x)
    faults = [finding for finding in diagnosis.findings if finding.kind.harms]
    ```

    Attributes:
        model: The name of the model.
        norms: How many batch normalizations it has.
        findings: What was found, in the order of the model, each with its `site`, `kind`, `detail` and `remedy`.
        notes: What could not be seen.
    """

    model: str
    norms: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain data, ready for JSON."""
        return {
            "version": REPORT_VERSION,
            "model": self.model,
            "norms": self.norms,
            "counts": dict(Counter(finding.kind.value for finding in self.findings)),
            "findings": [{**dataclasses.asdict(finding), "kind": finding.kind.value} for finding in self.findings],
            "notes": list(self.notes),
        }

    @property
    def title(self) -> str:
        """The diagnosis in one line."""
        harmful = sum(finding.kind.harms for finding in self.findings)
        found = _counted(harmful, "finding") if harmful else "nothing that harms"
        hints = _counted(len(self.findings) - harmful, "hint")
        return f"Diagnosis of {self.model!r}: {_counted(self.norms, 'batch normalization')}, {found}, {hints}"

    def picture(self) -> Findings:
        """What was found, as plain data to show."""
        return Findings("What was found, and what to do", self.to_dict()["findings"], self._meanings, self.notes)

    @property
    def _meanings(self) -> dict[str, str]:
        return {kind.value: kind.meaning for kind in Kind if any(each.kind is kind for each in self.findings)}

    @property
    def _page(self) -> Page:
        return Page(self.title, (Part(self.model, (), (self.picture(),)),), versions())

    def _text(self, width: int) -> Text:
        parts = (
            paragraph(self.title, width, "bold"),
            table_of(COLUMNS, list(map(_row_of, self.findings)), width),
            lines_of([paragraph(f"{word}: {meaning}", width) for word, meaning in self._meanings.items()]),
            lines_of([paragraph(note, width) for note in self.notes]),
        )
        return lines_of([part for part in parts if part], space=1)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _row_of(finding: Finding) -> Row:
    return finding.site, finding.kind.value, f"{finding.detail} Remedy: {finding.remedy}"


@in_turn()
def diagnose(model: keras.Model, data: Any = None, steps: int | None = None) -> Diagnosis:
    """Find what is wrong with the batch normalization of a model, and what to do about it.

    Each finding names the layer, says what there is to see, and has one remedy. The model is not changed, nor its
    optimizer and the state of its random numbers.

    Example:

    ```python
    print(kerasbn.diagnose(model, x_train))
    ```

    Args:
        model: A Keras model that was built. What depends on how layers are connected is said of Sequential and
            Functional models, and of subclassed ones that can be traced.
        data: A sample of the training inputs, as for `kerasbn.calibrate`: at least 100 examples or so, in batches as in
            training, with targets or without. Of the size of batches nothing is said where they are arrays. Defaults
            to `None`: only what the model itself tells is found.
        steps: How many batches to take. Defaults to `None`: all. Data that never ends needs it.

    Returns:
        A `Diagnosis`: print it, or go through its `findings`.

    Raises:
        OptionError: if the data does not fit the model, holds no batch or never ends.
        UnsupportedModelError: if the model was not built yet, has no `call` to run on data, or calls a batch
            normalization in a way that hides its values.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), section 3.1 on training and inference.
    - [Li et al., 2018](https://arxiv.org/abs/1801.05134), Dropout and the variance shift.
    - [Wu and Johnson, 2021](https://arxiv.org/abs/2105.07576), what goes wrong with batch normalization.
    """
    check_steps(steps)
    inputs = _without_targets(model, data)
    subject = Subject.of(model, None if data is None else first_batch(inputs))
    findings = [*of_structure(subject), *of_training(subject)]
    if data is None:
        findings += of_steps(subject)
    else:
        findings += of_data(subject, watched(model, inputs, steps), batched=not _is_arrays(inputs))
    order = {path: number for number, path in enumerate(subject.norms.values())}
    ordered = sorted(dict.fromkeys(findings), key=lambda each: order.get(each.site, len(order)))
    return Diagnosis(model.name, len(subject.norms), tuple(ordered), subject.notes)


def _is_arrays(data: Any) -> bool:
    return all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(data))


def _without_targets(model: keras.Model, data: Any) -> Any:
    """The inputs, where arrays are `(x, y)` or `(x, y, sample_weight)`."""
    if isinstance(data, tuple) and _keras.is_graph(model) and _is_arrays(data) and len(data) != len(model.inputs):
        return keras.utils.unpack_x_y_sample_weight(data)[0]
    return data
