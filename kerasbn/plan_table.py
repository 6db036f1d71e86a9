"""A plan as a table to read: where a network repeats itself, so many times, its rows are shown once."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from rich.cells import cell_len
from rich.text import Text

Row: TypeAlias = tuple[str, ...]

_NUMBER = re.compile(r"\d+")
_LONGEST_PERIOD = 100
_WORTH_SAVING = 4

_GAP, _BELOW = "   ", "    "
_LEAST = 30
"""What words need beside a row; where there is less, they go below it."""

_STYLES: Mapping[str, str] = {
    "insert": "green",
    "replace": "yellow",
    "remove": "red",
    "fold": "cyan",
    "merge": "magenta",
    "skip": "dim",
}
"""By what becomes of a call site, the last cell but one."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that come several times in a row, but for numbers that count up.

    Attributes:
        rows: The rows of one time, with their numbers as ranges: `"block{1..3}_conv"`.
        times: How many times they come.
    """

    rows: tuple[Row, ...]
    times: int


def grouped(rows: Sequence[Row]) -> Iterator[Group]:
    """The rows in their order, repetitions put together; at each row the longest stretch of them is taken."""
    kinds = [tuple(_NUMBER.sub("0", cell) for cell in row) for row in rows]
    matches = {period: _matches(kinds, period) for period in range(1, min(_LONGEST_PERIOD, len(rows) // 2) + 1)}
    start = 0
    while start < len(rows):
        stretches = (
            (period * times, period)
            for period, run in matches.items()
            for times in range(run[start] // period + 1, 1, -1)
            if (times - 1) * period >= _WORTH_SAVING and _counts_up(rows[start : start + times * period], period)
        )
        length, period = max(stretches, key=lambda found: (found[0], -found[1]), default=(1, 1))
        stretch = rows[start : start + length]
        yield Group(tuple(_merged(stretch[offset::period]) for offset in range(period)), length // period)
        start += length


def table_of(headings: Sequence[str], rows: Sequence[Row], width: int = 120) -> Text:
    """The rows as a table, with a column that says how many times where any come more than once.

    Args:
        headings: What stands above the columns.
        rows: As many cells each. The last is in words: they are broken where the width asks for it, and go below the
            row where little is left beside it. The others are never broken.
        width: How wide the table may be.
    """
    if not rows:
        return lines_of([])
    groups = list(grouped(rows))
    repeats = any(group.times > 1 for group in groups)
    body = [(f"{group.times} x" if group.times > 1 else "", *row) for group in groups for row in group.rows]
    heading, *lines = [line if repeats else line[1:] for line in (("times", *headings), *body)]
    columns = _Columns([max(map(cell_len, column)) for column in zip(heading, *lines, strict=True)], repeats, width)
    return lines_of([*columns.heading(heading), *(text for line in lines for text in columns.row(line))])


def paragraph(words: str, width: int, style: str = "") -> Text:
    """Lines of whole words; a path that is longer than a line is not broken."""
    return lines_of([Text(line, style) for line in _broken(words, width)])


def lines_of(texts: Iterable[Text], space: int = 0) -> Text:
    """Texts one below the other, with so many empty lines between; no terminal breaks or cuts them."""
    between = Text("\n" * (space + 1), no_wrap=True, overflow="ignore")
    return between.join(texts)


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Cells side by side, the words that are last beside them or below.

    Attributes:
        widths: The widths of the cells, if nothing is broken.
        counting: Whether the first cell says how many times.
        width: How wide all of it may be.
    """

    widths: Sequence[int]
    counting: bool
    width: int

    @property
    def _indent(self) -> int:
        return sum(width + len(_GAP) for width in self.widths[:-1])

    @property
    def _beside(self) -> bool:
        return self.width - self._indent >= min(self.widths[-1], _LEAST)

    def heading(self, line: Row) -> Iterator[Text]:
        """The headings, and a rule below."""
        text = self._cells(line[:-1], "bold", "bold").append(line[-1] if self._beside else "", "bold")
        text.rstrip()
        yield text
        yield Text("─" * min(self.width, self._indent + self.widths[-1]), "dim")

    def row(self, line: Row) -> Iterator[Text]:
        """A row, in one line or several."""
        *cells, words = line
        what = _STYLES.get(cells[-1].partition(":")[0], "")
        style = what if what == "dim" else ""
        text = self._cells(cells, style, what)
        indent = " " * (self._indent if self._beside else len(_BELOW) + self.counting * (self.widths[0] + len(_GAP)))
        broken = _broken(words, self.width - len(indent))
        if self._beside:
            text.append(broken.pop(0), style)
        text.rstrip()
        yield text
        yield from (Text(f"{indent}{part}", style) for part in broken)

    def _cells(self, cells: Sequence[str], style: str, last: str) -> Text:
        text = Text()
        for number, (cell, width) in enumerate(zip(cells, self.widths, strict=False)):
            space = " " * (width - cell_len(cell))
            padded = f"{space}{cell}" if self.counting and number == 0 else f"{cell}{space}"
            text.append(padded, last if number == len(cells) - 1 else style).append(_GAP)
        return text


def _broken(words: str, width: int) -> list[str]:
    return textwrap.wrap(words, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def span_of(names: Sequence[str]) -> str:
    """Names in one: `"block{2..4}_add"` where they count up, `"conv_{5, .., 11}"` where their numbers leave some out,
    and where they differ by more than numbers, the first and the last.
    """
    if len({_NUMBER.sub("0", name) for name in names}) > 1:
        return f"{names[0]} … {names[-1]}"
    shown = (_range_of(column) if _is_range(column) else _some_of(column) for column in _columns(names))
    return _NUMBER.sub(lambda _: next(shown), names[0])


def _matches(kinds: Sequence[Row], period: int) -> list[int]:
    """For each row, how many from there on are of the kind of the row one period further."""
    run = [0] * (len(kinds) + 1)
    for index in reversed(range(len(kinds) - period)):
        run[index] = run[index + 1] + 1 if kinds[index] == kinds[index + period] else 0
    return run


def _counts_up(rows: Sequence[Row], period: int) -> bool:
    """Whether each time is the same but for numbers that take all values from one to another.

    The first number to change must be the same in all rows of a time, `"block3_conv1"` and
    `"block3_add"`: so no time begins in the middle of a block.
    """
    first: set[tuple[str, ...]] = set()
    for offset in range(period):
        columns = [column for column in _columns([row[0] for row in rows[offset::period]]) if len(set(column)) > 1]
        first.update(columns[:1])
        if not all(_is_range(column) for column in columns):
            return False
    return len(first) == 1


def _is_range(numbers: Sequence[str]) -> bool:
    values = {int(number) for number in numbers}
    return len(values) == max(values) - min(values) + 1


def _merged(rows: Sequence[Row]) -> Row:
    return tuple(_merged_cell(cells) for cells in zip(*rows, strict=True))


def _merged_cell(cells: Sequence[str]) -> str:
    shown = (_range_of(column) for column in _columns(cells))
    return _NUMBER.sub(lambda _: next(shown), cells[0])


def _columns(cells: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The numbers in texts that differ by nothing else, first with first."""
    return zip(*(_NUMBER.findall(cell) for cell in cells), strict=True)


def _range_of(numbers: Sequence[str]) -> str:
    low, high = (bound(numbers, key=int) for bound in (min, max))
    return low if len(set(numbers)) == 1 else f"{{{low}..{high}}}"


def _some_of(numbers: Sequence[str]) -> str:
    found = sorted({int(number) for number in numbers})
    return f"{{{found[0]}, {'.., ' if len(found) > 2 else ''}{found[-1]}}}"
