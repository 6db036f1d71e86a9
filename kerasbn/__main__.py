"""`python -m kerasbn`: the command."""

from __future__ import annotations

from kerasbn.cli.main import run

if __name__ == "__main__":
    run()
