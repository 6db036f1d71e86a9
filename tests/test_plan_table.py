"""What repeats is shown once."""

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

import kerasbn
from kerasbn.plan_table import grouped, span_of, table_of


def _rows(*sites):
    return [(site, "insert") for site in sites]


GROUPS = {
    "counting up": (_rows(*(f"conv{n}" for n in range(1, 7))), ["6 x conv{1..6}"]),
    "blocks": (
        _rows("stem", *(f"b{n}_{part}" for n in range(3) for part in ("conv", "add")), "head"),
        ["stem", "3 x b{0..2}_conv b{0..2}_add", "head"],
    ),
    "two numbers": (
        _rows(*(f"b{n}_conv{m}" for n in (1, 2) for m in (1, 2, 3))),
        ["6 x b{1..2}_conv{1..3}"],
    ),
    "a block is not begun in its middle": (
        _rows("b1_short", "b1_add", *(f"b{n}_{part}" for n in (2, 3, 4) for part in ("conv", "add"))),
        ["b1_short", "b1_add", "3 x b{2..4}_conv b{2..4}_add"],
    ),
    "a gap is not hidden": (_rows(*(f"conv{n}" for n in (1, 2, 3, 4, 5, 7, 9))), ["5 x conv{1..5}", "conv7", "conv9"]),
    "too few to be worth it": (_rows("conv1", "conv2", "conv3"), ["conv1", "conv2", "conv3"]),
    "another detail": (
        [(f"conv{n}", "insert" if n < 6 else "skip") for n in range(1, 8)],
        ["5 x conv{1..5}", "conv6", "conv7"],
    ),
    "nothing": ([], []),
}


@pytest.mark.parametrize("case", GROUPS)
def test_groups(case):
    rows, expected = GROUPS[case]
    got = []
    for group in grouped(rows):
        names = " ".join(row[0] for row in group.rows)
        got.append(names if group.times == 1 else f"{group.times} x {names}")
    assert got == expected


@given(st.lists(st.tuples(st.sampled_from([f"{a}{n}" for a in "ab" for n in range(3)]), st.sampled_from("xy"))))
def test_every_row_is_counted_once(rows):
    assert sum(group.times * len(group.rows) for group in grouped(rows)) == len(rows)


@pytest.mark.parametrize(
    ("names", "span"),
    [
        (["b1_add#0", "b2_add#0", "b3_add#0"], "b{1..3}_add#0"),
        (["conv_5", "conv_8"], "conv_{5, 8}"),
        (["conv_5", "conv_8", "conv_11"], "conv_{5, .., 11}"),
        (["7x7x4", "7x7x4"], "7x7x4"),
        (["stem", "head"], "stem … head"),
        (["block2b_add", "block2c_add"], "block2b_add … block2c_add"),
    ],
)
def test_names_in_one(names, span):
    assert span_of(names) == span


def test_the_column_of_times_is_there_only_if_something_repeats():
    assert "times" not in table_of(("call site", "what"), _rows("a", "b")).plain
    assert "6 x   conv{1..6}" in table_of(("call site", "what"), _rows(*(f"conv{n}" for n in range(1, 7)))).plain


_HEADINGS = ("call site", "what", "detail")
_LONG = [
    ("stage1/conv#0", "insert", "'stage1/conv_bn' before relu; the bias becomes beta"),
    ("a_longer_path/than_a_narrow_terminal_takes/conv#0", "skip: output", "yields an output of the model"),
]
# A width, and the table: words beside their rows in one line or several, or below where little is left beside them.
WIDTHS = {
    4096: """\
call site                                           what           detail
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
stage1/conv#0                                       insert         'stage1/conv_bn' before relu; the bias becomes beta
a_longer_path/than_a_narrow_terminal_takes/conv#0   skip: output   yields an output of the model""",
    108: """\
call site                                           what           detail
────────────────────────────────────────────────────────────────────────────────────────────────────────────
stage1/conv#0                                       insert         'stage1/conv_bn' before relu; the bias
                                                                   becomes beta
a_longer_path/than_a_narrow_terminal_takes/conv#0   skip: output   yields an output of the model""",
    40: """\
call site                                           what
────────────────────────────────────────
stage1/conv#0                                       insert
    'stage1/conv_bn' before relu; the
    bias becomes beta
a_longer_path/than_a_narrow_terminal_takes/conv#0   skip: output
    yields an output of the model""",
}


@pytest.mark.parametrize("width", WIDTHS)
def test_widths(width):
    assert table_of(_HEADINGS, _LONG, width).plain == WIDTHS[width]


def test_what_repeats_is_ahead_of_its_words_below():
    rows = [(f"conv{n}", "insert", "in some more words than there is room for beside it") for n in range(1, 7)]
    lines = table_of(_HEADINGS, rows, 40).plain.splitlines()[2:]
    assert lines == [
        "  6 x   conv{1..6}   insert",
        *(" " * 12 + part for part in ("in some more words than", "there is room for beside it")),
    ]


def test_colours_are_for_kinds_and_skips_are_dim():
    table = table_of(_HEADINGS, _LONG)
    styles = {table.plain[span.start : span.end].strip(): str(span.style) for span in table.spans}
    assert styles["insert"] == "green"
    assert styles["skip: output"] == styles["yields an output of the model"] == "dim"


def test_an_empty_table_is_nothing():
    assert not table_of(_HEADINGS, [])


def test_a_plan_of_a_repeating_network_is_short():
    layers = [L.Dense(8, activation="relu", name=f"fc{n}") for n in range(1, 51)]
    plan = kerasbn.plan(keras.Sequential([keras.Input((8,)), *layers, L.Dense(3, name="head")]))
    assert len(plan.edits) == 100
    assert "50 x   fc{1..50}#0   insert" in str(plan)
    assert len(str(plan).splitlines()) < 10
