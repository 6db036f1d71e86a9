"""Where BN comes back, against where the authors of published networks had it.

    python tools/expert_placement.py            # writes docs/support/expert_placement.md

Each network of `keras.applications` is stripped of every BN and planned with `position="auto"`. A
place is right if the authors had a BN on the very same value; one behind a concatenation counts as one
on each part. Precision: how many of kerasbn's
places are right; recall: how many of the authors' places kerasbn finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras

import kerasbn
from kerasbn.catalog.roles import Role, joins, role_of
from kerasbn.graph.build import build
from kerasbn.graph.edit import Insert, Remove, apply
from kerasbn.graph.model import CallSite, Graph
from kerasbn.graph.read import read

NETWORKS = (
    *("ResNet50", "ResNet101", "ResNet152", "InceptionV3", "Xception"),
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"),
    *(f"EfficientNetB{number}" for number in range(8)),
    *("EfficientNetV2B0", "EfficientNetV2B3", "EfficientNetV2S", "EfficientNetV2M"),
    *("InceptionResNetV2", "NASNetMobile", "DenseNet121", "ResNet50V2"),
)


def authors_places(graph: Graph) -> set[str]:
    """The call sites that a BN follows; where it follows another BN, the one that that follows."""
    places = set()
    flat = graph.flat
    for site in flat.sites:
        if role_of(site.operation) is Role.BATCH_NORMALIZATION:
            producer = flat.producers[site.inputs[0]]
            while role_of(producer.operation) is Role.BATCH_NORMALIZATION:
                producer = flat.producers[producer.inputs[0]]
            places.update(_parts(flat, producer))
    return places


def _parts(flat: Graph, site: CallSite) -> Iterator[str]:
    """A call site; for one that joins channels, those that yield its parts, as BN is by channel."""
    if joins(site.operation) and len(site.inputs) > 1:
        for value in site.inputs:
            yield from _parts(flat, flat.producers[value])
    else:
        yield site.address


def stripped(graph: Graph) -> Graph:
    """The network without its BN, as a model read anew."""
    norms = [site for site in graph.walk() if role_of(site.operation) is Role.BATCH_NORMALIZATION]
    return read(build(apply(graph, [Remove(site.address) for site in norms]), copy=False).model)


def our_places(graph: Graph) -> set[str]:
    """The call sites that the plan puts a BN behind; for one ahead of a site, the site that yields its input."""
    places = set()
    flat = graph.flat
    by_address = {site.address: site for site in flat.sites}
    for edit in kerasbn.plan(graph.model, copy=False).edits:
        for change in edit.changes:
            if isinstance(change, Insert) and role_of(change.layer) is Role.BATCH_NORMALIZATION:
                address, number = change.edge.address, change.edge.input
                if number is not None:
                    places.update(_parts(flat, flat.producers[by_address[address].inputs[number]]))
                else:
                    places.update(_parts(flat, by_address[address]))
    return places


def table(rows: Iterable[tuple[str, set[str], set[str]]]) -> str:
    """The Markdown table of networks, authors' places and ours."""
    lines = [
        "| network | authors' BN | kerasbn's | precision | recall | not found | not the authors' |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for name, theirs, ours in rows:
        right = len(theirs & ours)
        lines.append(
            f"| {name} | {len(theirs)} | {len(ours)} | {right / max(len(ours), 1):.3f} | "
            f"{right / max(len(theirs), 1):.3f} | {_some(theirs - ours)} | {_some(ours - theirs)} |"
        )
    return "\n".join(lines)


def _some(addresses: set[str]) -> str:
    listed = ", ".join(f"`{address}`" for address in sorted(addresses)[:3])
    return listed + (f" and {len(addresses) - 3} more" if len(addresses) > 3 else "")


def compare(name: str) -> tuple[str, set[str], set[str]]:
    """Strip one network, plan it, and compare."""
    make: Callable[..., keras.Model] = getattr(keras.applications, name)
    graph = read(make(weights=None))
    return name, authors_places(graph), our_places(stripped(graph))


@click.command(help=__doc__)
@click.option("--network", "networks", multiple=True, help="A network of keras.applications; all by default.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("docs/support/expert_placement.md"), show_default=True
)
def main(networks: tuple[str, ...], output: Path) -> None:
    rows = []
    for name in networks or NETWORKS:
        rows.append(compare(name))
        click.echo(table(rows[-1:]).splitlines()[-1])
    if not networks:
        versions = f"keras {keras.__version__}, kerasbn {version('kerasbn')}"
        output.write_text(
            "# Experts' placement\n\nMade by `python tools/expert_placement.py`, which says what is counted "
            f"({versions}).\n\n{table(rows)}\n"
        )


if __name__ == "__main__":
    main()
