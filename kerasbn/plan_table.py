"""A plan as a table to read: where a network repeats itself, so many times, its rows are shown once."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

Row: TypeAlias = tuple[str, ...]

_NUMBER = re.compile(r"\d+")
_LONGEST_PERIOD = 100
_WORTH_SAVING = 4


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


def table_of(headings: Sequence[str], rows: Sequence[Row], width: int = 120) -> str:
    """The rows as a table, with a column that says how many times where any come more than once."""
    groups = list(grouped(rows))
    repeats = any(group.times > 1 for group in groups)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    if repeats:
        table.add_column("times", justify="right")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for group in groups:
        for row in group.rows:
            table.add_row(*([f"{group.times} x" if group.times > 1 else ""] if repeats else []), *row)
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


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
