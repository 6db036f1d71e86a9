"""Where models are written to, and what is wrong with that before any work is done."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kerasbn.errors import ModelFileError, OptionError
from kerasbn.files.formats import Format, Layout, check_layout, companions_of, format_of, formats_of, suffix_of
from kerasbn.files.staging import check_target


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a model is written to.

    Attributes:
        path: The file or folder.
        format: Its format.
        layout: The model server that it is for, if it is a folder for one.
    """

    path: Path
    format: Format
    layout: Layout | None = None

    @property
    def companions(self) -> tuple[Path, ...]:
        """Files beside it that may belong to it."""
        return companions_of(self.format, self.path, self.layout)

    def check(self, model: Path, *, overwrite: bool) -> None:
        """Refuse a place that cannot be written to, or is the model's own.

        Raises:
            KerasBNError: naming it.
        """
        check_target(self.path, overwrite=overwrite, companions=self.companions)
        here, there = self.path.resolve(), model.resolve()
        if there.is_relative_to(here) or here.is_relative_to(there):
            raise OptionError(
                f"Output {str(self.path)!r} is the model itself, or one lies in the other; the model is never touched. "
                "Choose another."
            )


@dataclasses.dataclass(frozen=True)
class Targets:
    """The models of one run, and what is to be written of each.

    Attributes:
        outputs: Pairs of a model and its outputs.
        folder: Where all of them go, if there is one folder for that.
    """

    outputs: tuple[tuple[Path, tuple[Output, ...]], ...]
    folder: Path | None = None

    @property
    def several(self) -> bool:
        """Whether there are several models."""
        return len(self.outputs) > 1

    @property
    def are_there(self) -> bool:
        """Whether the folder is there, if there is to be one, so that it may hold something already."""
        return self.folder is None or self.folder.is_dir()


def targets_of(
    models: Sequence[Path], outputs: Sequence[Path], formats: Sequence[Format], layout: Layout | None
) -> Targets:
    """What is to be written of each model: of one as the outputs say, of several in a folder.

    Raises:
        KerasBNError: if that cannot be, whatever the models are.
    """
    if not outputs:
        return Targets(tuple((model, ()) for model in models))
    if len(models) == 1 and not formats:
        return Targets(((models[0], _outputs_at(outputs, layout)),))
    if len(outputs) > 1:
        raise OptionError(
            "With several models, or a --format, there is one output: the folder that all are written to. Give one -o, "
            "and a --format for each format."
        )
    (folder,) = outputs
    _check_folder(folder)
    found = _outputs_in(folder, models, formats, layout)
    return Targets(tuple(zip(models, found, strict=True)), folder)


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """See to it that a folder is there, and is gone again if it was not and nothing came into it.

    Raises:
        ModelFileError: if it cannot be made.
    """
    _check_folder(folder)
    new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"Cannot make the folder {str(folder)!r}: {error.strerror}.") from error
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _outputs_at(paths: Sequence[Path], layout: Layout | None) -> tuple[Output, ...]:
    """The outputs of one model, of the formats that their suffixes stand for.

    Raises:
        OptionError: for a suffix that stands for none, and outputs in one place.
    """
    for path in paths:
        if sum(path.resolve().is_relative_to(other.resolve()) for other in paths) > 1:
            raise OptionError(
                f"Output {str(path)!r} is given twice, or lies in another one. Give each a place of its own."
            )
    # The layout is one of folders; files beside them are as they would be without.
    return tuple(Output(path, format_of(path, layout), None if path.suffix else layout) for path in paths)


def _outputs_in(
    folder: Path, models: Sequence[Path], formats: Sequence[Format], layout: Layout | None
) -> tuple[tuple[Output, ...], ...]:
    """The outputs of several models, in a folder, of the models' names.

    Args:
        folder: The folder.
        models: The models.
        formats: The formats to write each in. If there are none, the layout's own, or else `.keras`.
        layout: The model server that folders are for.

    Raises:
        OptionError: for models of one name, and a layout that none of the formats is for.
    """
    if not formats:
        formats = ("keras",) if layout is None else formats_of(layout)[:1]
    served = () if layout is None else formats_of(layout)
    if layout is not None and not set(served) & set(formats):
        check_layout(layout, formats[0])
    found = tuple(
        tuple(
            Output(folder / name, kind, layout) if kind in served else Output(folder / f"{name}{suffix_of(kind)}", kind)
            for kind in dict.fromkeys(formats)
        )
        for name in map(_name_of, models)
    )
    _refuse_one_place(models, found)
    return found


def _check_folder(folder: Path) -> None:
    """Refuse a folder for outputs that is something else, or cannot be made.

    Raises:
        ModelFileError: naming it.
    """
    if folder.exists() and not folder.is_dir():
        raise ModelFileError(
            f"Output {str(folder)!r} is a file. Where there are several models, or a --format, it is the folder that "
            "all are written to: choose another."
        )
    if not folder.parent.is_dir():
        raise ModelFileError(
            f"Cannot make the folder {str(folder)!r}: the folder {str(folder.parent)!r} does not exist. Make it first."
        )


def _name_of(model: Path) -> str:
    return model.resolve().name if os.path.isdir(model) else model.stem


def _refuse_one_place(models: Sequence[Path], outputs: Sequence[Sequence[Output]]) -> None:
    sources: Mapping[Path, list[Path]] = defaultdict(list)
    for model, each in zip(models, outputs, strict=True):
        for output in each:
            sources[output.path].append(model)
    for path, several in sources.items():
        if len(set(several)) > 1:
            named = " and ".join(repr(str(model)) for model in several)
            raise OptionError(
                f"Models {named} would all be written to {str(path)!r}. Rename one of them, or give each a run and an "
                "output of its own."
            )
        if len(several) > 1:
            raise OptionError(
                f"Output {str(path)!r} would be written twice, as model {str(several[0])!r} is given twice, or two "
                "formats. Leave one out."
            )
