"""Reproduce the claims behind batch normalization, each in minutes on two CPU cores.

    python tools/reproduce.py paper_network         # writes docs/reproduce/paper_network.md and .svg
    python tools/reproduce.py all
    python tools/reproduce.py circles --seeds 1 --quick --output /tmp    # only to see that it runs

Each network is trained at its own best learning rate, chosen on a validation part by seeds apart
from those that are reported; the tables show all rates that were tried.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click

if TYPE_CHECKING:
    from reproduction.comparison import Budget

EXPERIMENTS = (
    *("paper_network", "deep_sigmoid", "learning_rates", "optimizers", "positions"),
    *("circles", "dropout", "gates", "input_scales", "moving_statistics", "calibration", "rate_finder"),
    *("saved_models", "everyday", "speech", "ema", "adapt", "small_batches", "compare"),
)
FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reproduce"


@click.command(help=__doc__)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=click.Choice([*EXPERIMENTS, "all"]))
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, help="Seeds that are reported.")
@click.option("--sweep-seeds", type=click.IntRange(1), default=2, show_default=True, help="Seeds for each rate tried.")
@click.option("--quick", is_flag=True, help="Only a few steps at two rates.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, show_default=True)
def main(names: Sequence[str], seeds: int, sweep_seeds: int, quick: bool, output: Path) -> None:
    from reproduction.comparison import Budget

    if quick and output == FOLDER:
        raise click.UsageError("--quick shows nothing; say with --output where else to write it.")
    output.mkdir(parents=True, exist_ok=True)
    for name in EXPERIMENTS if "all" in names else names:
        reproduce(name, Budget(seeds, sweep_seeds, quick), output)


def reproduce(name: str, budget: Budget, output: Path) -> None:
    """Run one experiment and write what it found."""
    from reporting import machine
    from reproduction.plot import draw

    experiment = importlib.import_module(f"reproduction.experiments.{name}")
    begin, made_on = time.perf_counter(), machine()
    report = experiment.run(budget)
    minutes = (time.perf_counter() - begin) / 60
    draw(report.panels, output / f"{name}.svg")
    title, _, text = experiment.__doc__.strip().partition("\n\n")
    made = f"Made by `python tools/reproduce.py {name}` in {minutes:.0f} minutes, on a machine that other work shared:"
    head = (f"# {' '.join(title.split())}", text, made, made_on, f"![The plot]({name}.svg)\n")
    path = output / f"{name}.md"
    path.write_text("\n".join(("\n\n".join(head), *(table.markdown() for table in report.tables))))
    click.echo(path)


if __name__ == "__main__":
    main()
