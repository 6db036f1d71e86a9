"""Progress is shown where a person looks on, and nowhere else."""

import io
import sys
import warnings

import pytest

from kerasbn.progress import shown, steps


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def watching(monkeypatch):
    """Have stderr be something else, for the rest of a test."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    def put(stderr):
        monkeypatch.setattr(sys, "stderr", stderr)
        return stderr

    return put


def _go(quiet=False, items=(0, 1, 2)):
    with steps(2, quiet=quiet) as step:
        step("Reading [a].keras")
        step("Calibrating")
        return [1 / item for item in shown(items, "Measuring", 3)]


def test_steps_and_what_is_in_them_are_shown_in_a_terminal(watching):
    stderr = watching(_Terminal())
    assert _go(items=(1, 2)) == [1, 0.5]
    assert all(what in stderr.getvalue() for what in ("Calibrating", "Measuring"))


def test_bars_go_by_themselves(watching):
    stderr = watching(_Terminal())
    assert list(shown("ab", "Measuring")) == ["a", "b"]
    assert "Measuring" in stderr.getvalue()


@pytest.mark.parametrize(
    ("kind", "quiet", "variables"),
    [
        (_Terminal, True, {}),
        (_Terminal, False, {"TERM": "dumb"}),
        (io.StringIO, False, {}),
        (io.StringIO, False, {"FORCE_COLOR": "1"}),
    ],
)
def test_else_nothing_is_shown(kind, quiet, variables, watching, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stderr = watching(kind())
    assert _go(quiet, items=(1, 2)) == [1, 0.5]
    assert stderr.getvalue() == ""


def test_a_notebook_without_widgets_shows_nothing(watching, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    stderr = watching(io.StringIO())
    with warnings.catch_warnings(action="error"):
        assert _go(items=(1, 2)) == [1, 0.5]
    assert stderr.getvalue() == ""


def test_what_fails_leaves_no_bar_behind(watching):
    watching(_Terminal())
    with pytest.raises(ZeroDivisionError):
        _go()
    stderr = watching(_Terminal())
    assert list(shown("ab", "Measuring")) == ["a", "b"]
    assert "Calibrating" not in stderr.getvalue()
