"""Time that `import kerasbn` and `kerasbn-rewrite --help` take, beside what they run on.

    python tools/bench_import.py    # about three minutes

Each run is a process of its own, the contenders taking turns, so that what else goes on hits all of them alike. A first
round, which fills the caches of the disk, does not count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console
from rich.progress import track

from reporting import Table, machine, spread

REPORT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "import.md"

# What is shown, and the arguments of Python.
CONTENDERS = {
    "Python, nothing imported": ("-c", ""),
    "`import kerasbn`": ("-c", "import kerasbn"),
    "`kerasbn-rewrite --help`": ("-m", "kerasbn", "--help"),
    "`import numpy`": ("-c", "import numpy"),
    "`import tensorflow`": ("-c", "import tensorflow"),
    "`import keras`": ("-c", "import keras"),
    "`import keras, kerasbn; kerasbn.rewrite`": ("-c", "import keras, kerasbn; kerasbn.rewrite"),
    "`import keras, kerasbn; kerasbn.export`": ("-c", "import keras, kerasbn; kerasbn.export"),
}


def seconds(arguments: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


@click.command()
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(min=1))
def main(rounds: int) -> None:
    console = Console()
    on = machine()
    taken: dict[str, list[float]] = {what: [] for what in CONTENDERS}
    for number in track(range(rounds + 1), console=console):
        for what, arguments in CONTENDERS.items():
            lasted = seconds(arguments)
            if number:
                taken[what].append(lasted)
    nothing = statistics.median(taken["Python, nothing imported"])
    table = Table(
        "From the start of the process to its end",
        ("what", "", f"seconds: median (least..most) of {rounds}", "more than Python itself"),
        tuple((what, "", spread(each), f"{statistics.median(each) - nothing:.3f}") for what, each in taken.items()),
        "Names of kerasbn are imported when they are first used: the last two rows use one that needs Keras, and one "
        "that writes files.",
    )
    console.print(table.rich())
    title = f"# Importing\n\n`tools/bench_import.py`. {(__doc__ or '').splitlines()[0]}\n\n{on}\n"
    REPORT.write_text("\n".join((title, table.markdown())))


if __name__ == "__main__":
    main()
