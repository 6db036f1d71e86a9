"""Where BN goes beyond plain classifiers: detectors, hybrids, and networks that are normalized already.

    python tools/placement_beyond.py        # writes docs/support/placement_beyond.md; needs keras_cv_attention_models

Placement is compared as in `tools/expert_placement.py`. Normalized networks, those of
`keras.applications` that have normalization among them, are planned as they are with `position="auto"`.
"""

from __future__ import annotations

import gc
import inspect
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import click
import keras

import kerasbn
from expert_placement import authors_places, our_places, stripped, table
from kecam_networks import DETECTORS, HYBRIDS, NORMALIZED
from kerasbn.catalog.roles import NORMALIZING, Role, role_of
from kerasbn.graph.read import read
from reporting import Table

EXPERTS_DIFFER = """Experts differ: the authors of ResNeSt and CotNet normalize inside of squeeze-and-excite gates,
which are left alone here; those of LeViT the queries, keys and values, which those of CoAtNet, MobileViT and BotNet do
not; those of BotNet, HaloNet and CotNet what an attention yields; those of FasterNet one layer of three in a block,
those of EfficientViT the last one; those of CoAtNet ahead of its inverted bottlenecks."""


def compared(name: str, make: Callable[[], keras.Model]) -> tuple[str, set[str], set[str]]:
    """The authors' places and kerasbn's."""
    graph = read(make())
    return name, authors_places(graph), our_places(stripped(graph))


def f1_of(theirs: set[str], ours: set[str]) -> float:
    return 2 * len(theirs & ours) / (len(theirs) + len(ours))


def normalized(name: str, make: Callable[[], keras.Model]) -> tuple[str, str, str, str] | None:
    """The linear layers of a network, and those that get a BN; `None` if it has no normalization."""
    model = make()
    roles = Counter(role_of(site.operation) for site in read(model).flat.sites)
    if not any(roles[role] for role in NORMALIZING):
        return None
    inserted = [edit.site for edit in kerasbn.plan(model).edits if edit.kind == "insert"]
    return name, str(roles[Role.LINEAR]), str(len(inserted)), ", ".join(f"`{site}`" for site in inserted[:3])


def applications() -> dict[str, Callable[[], keras.Model]]:
    """All networks of `keras.applications`."""
    found = vars(keras.applications).items()
    functions = {name: member for name, member in found if inspect.isfunction(member) and name[0].isupper()}
    return {name: lambda make=make: make(weights=None) for name, make in sorted(functions.items())}  # type: ignore[misc]


@click.command(help=__doc__)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("docs/support/placement_beyond.md"), show_default=True
)
def main(output: Path) -> None:
    placed = []
    for name, make in (DETECTORS | HYBRIDS).items():
        placed.append(compared(name, make))
        click.echo(f"{name} {f1_of(*placed[-1][1:]):.3f}")
        _forget()
    left = []
    for name, make in (NORMALIZED | applications()).items():
        if row := normalized(name, make):
            left.append(row)
            click.echo(" | ".join(row))
        _forget()
    total, inserted = (sum(int(row[index]) for row in left) for index in (1, 2))
    mean = sum(f1_of(theirs, ours) for _, theirs, ours in placed) / len(placed)
    used = f"keras {keras.__version__}, keras-cv-attention-models {kecam_version()}, kerasbn {version('kerasbn')}"
    note = f"{inserted} of {total} linear layers get a BN, {inserted / total:.2%}."
    text = (
        "# Placement beyond classifiers\n\nMade by `python tools/placement_beyond.py`, which says what is counted "
        f"({used}).\n\n## Detectors and hybrids, stripped\n\n{table(placed)}\n\nMean F1: {mean:.3f}. "
        f"{EXPERTS_DIFFER}\n\n"
    )
    headings = ("network", "linear layers", "BN", "where")
    output.write_text(text + Table("Normalized networks", headings, tuple(left), note).markdown())


def kecam_version() -> str:
    import keras_cv_attention_models

    return str(keras_cv_attention_models.__version__)


def _forget() -> None:
    keras.backend.clear_session()
    gc.collect()


if __name__ == "__main__":
    main()
