"""Reproduce the claims behind batch normalization, each in minutes on two CPU cores, or at the size of the papers.

    python tools/reproduce.py paper_network         # writes docs/reproduce/paper_network.md and .svg
    python tools/reproduce.py all
    python tools/reproduce.py paper --mnist mnist.npz    # those of the papers' size: hours
    KERAS_BACKEND=jax python tools/reproduce.py resnets --mnist mnist.npz --device gpu:0
    python tools/reproduce.py circles --seeds 1 --quick --output /tmp    # only to see that it runs

Each network is trained at its own best learning rate, chosen on a validation part by seeds apart
from those that are reported; the tables show all rates that were tried. What takes hours goes on
where it was cut, and runs under JAX as well, on a GPU for example.
"""

from __future__ import annotations

import contextlib
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
    *("paper_network", "deep_sigmoid", "learning_rates", "optimizers", "positions", "activations", "default"),
    *("circles", "dropout", "gates", "input_scales", "moving_statistics", "calibration", "rate_finder"),
    *("saved_models", "everyday", "speech", "ema", "adapt", "small_batches", "compare", "trained", "regression"),
)
PAPER = ("paper_mnist", "inception", "auxiliary_head", "resnets")
"""Those that take hours."""
ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reproduce"
DOWNLOADED = Path("~/.keras/datasets/mnist.npz").expanduser()


@click.command(help=__doc__)
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, type=click.Choice([*EXPERIMENTS, *PAPER, "all", "paper"])
)
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, help="Seeds that are reported.")
@click.option("--sweep-seeds", type=click.IntRange(1), default=2, show_default=True, help="Seeds for each rate tried.")
@click.option("--quick", is_flag=True, help="Only a few steps at two rates.")
@click.option(
    "--mnist",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=DOWNLOADED if DOWNLOADED.exists() else None,
    help="Digits of 28x28 pixels, in the layout of Keras's mnist.npz, for what is of the papers' size.  "
    "[default: what Keras has downloaded; else scikit-learn's digits]",
)
@click.option("--device", metavar="NAME", help="Where to run, as Keras calls it: gpu:0.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, show_default=True)
def main(
    names: Sequence[str],
    seeds: int,
    sweep_seeds: int,
    quick: bool,
    mnist: Path | None,
    device: str | None,
    output: Path,
) -> None:
    import keras

    from reporting import commit
    from reproduction.comparison import Budget
    from reproduction.engines import ENGINES
    from reproduction.store import Store

    if quick and output == FOLDER:
        raise click.UsageError("--quick shows nothing; say with --output where else to write it.")
    if keras.backend.backend() not in ENGINES:
        raise click.UsageError(f"It runs under {' and '.join(ENGINES)}: set KERAS_BACKEND to one of them.")
    output.mkdir(parents=True, exist_ok=True)
    several = {"all": EXPERIMENTS, "paper": PAPER}
    for name in dict.fromkeys(each for given in names for each in several.get(given, (given,))):
        version = f"{commit()} {quick} {mnist} {keras.backend.backend()} {device}"
        store = Store(ROOT / "build" / "reproduce" / f"{name}.jsonl", version) if name in PAPER else Store()
        reproduce(name, Budget(seeds, sweep_seeds, quick, mnist, store), output, device)


def command(name: str, budget: Budget, device: str | None) -> str:
    """What to type to make a page again."""
    import keras

    backend = keras.backend.backend()
    parts = (
        *([] if backend == "tensorflow" else [f"KERAS_BACKEND={backend}"]),
        f"python tools/reproduce.py {name} --seeds {budget.seeds} --sweep-seeds {budget.sweep_seeds}",
        *(["--mnist FILE"] if budget.mnist and name in PAPER else []),
        *([f"--device {device}"] if device else []),
    )
    return " ".join(parts)


def reproduce(name: str, budget: Budget, output: Path, device: str | None) -> None:
    """Run one experiment and write what it found."""
    import keras

    from reporting import machine
    from reproduction.plot import draw

    experiment = importlib.import_module(f"reproduction.experiments.{name}")
    begin, made_on = time.perf_counter(), machine(keras.backend.backend())
    with keras.device(device) if device else contextlib.nullcontext():
        report = experiment.run(budget)
    minutes = (time.perf_counter() - begin + budget.store.spent) / 60
    draw(report.panels, output / f"{name}.svg")
    title, _, text = experiment.__doc__.strip().partition("\n\n")
    made = f"Made by `{command(name, budget, device)}` in {minutes:.0f} minutes, on a machine that other work shared:"
    head = (f"# {' '.join(title.split())}", text, made, made_on, f"![The plot]({name}.svg)\n")
    path = output / f"{name}.md"
    path.write_text("\n".join(("\n\n".join(head), *(table.markdown() for table in report.tables))))
    budget.store.forget()
    click.echo(path)


if __name__ == "__main__":
    main()
