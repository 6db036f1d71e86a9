"""Networks of parallel linear branches, folded and merged: what is left, whether it is right, and how fast it is.

    pip install --no-deps keras-cv-attention-models==1.4.3 ftfy wcwidth tqdm regex pillow
    python tools/merge_branches.py              # writes docs/support/merge_branches.md, some minutes

RepVGG and MobileOne are written here after the papers; the others are those of keras_cv_attention_models.
Weights are random, gamma of both signs, gamma and variance over decades, images of 224x224.

"Linear" counts Dense and convolutions, depthwise ones too. "Published" is how many there are in the
network that its authors serve, re-parameterized: as the package builds it for serving (`deploy=True`, or
`use_reparam_conv=False`), or of the paper. "Difference" is as in `tools/fold_applications.py`.

Latency is that of one image in a compiled function on two threads, of the source, the folded and the
merged network in turns, each repeat beginning with another one; the ratios are taken within a repeat.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
import tensorflow as tf
from keras import layers

import kerasbn
from kecam_networks import kecam
from kerasbn.catalog.roles import Role, role_of
from networks import normalizations, randomize, verdict
from reporting import Table, machine

SIZE = 224
THREADS = 2


def _branch(x: Any, layer: keras.layers.Layer) -> Any:
    return layers.BatchNormalization(epsilon=1e-5)(layer(x))


def _repvgg_block(x: Any, filters: int, strides: int) -> Any:
    convolutions = (layers.Conv2D(filters, size, strides, "same", use_bias=False) for size in (3, 1))
    branches = [_branch(x, each) for each in convolutions]
    if strides == 1 and x.shape[-1] == filters:
        branches.append(_branch(x, layers.Identity()))
    return layers.ReLU()(layers.Add()(branches))


def repvgg_a0() -> keras.Model:
    """RepVGG-A0 (Ding et al., 2021)."""
    inputs = x = keras.Input((SIZE, SIZE, 3))
    for filters, blocks in ((48, 1), (48, 2), (96, 4), (192, 14), (1280, 1)):
        for block in range(blocks):
            x = _repvgg_block(x, filters, 1 if block else 2)
    return keras.Model(inputs, layers.Dense(1000)(layers.GlobalAveragePooling2D()(x)), name="repvgg_a0")


def _mobileone_block(x: Any, make: Callable[[int], keras.layers.Layer], size: int, strides: int, copies: int) -> Any:
    branches = [_branch(x, make(size)) for _ in range(copies)]
    if size > 1:
        branches.append(_branch(x, make(1)))
    if strides == 1 and x.shape[-1] == branches[0].shape[-1]:
        branches.append(_branch(x, layers.Identity()))
    return layers.ReLU()(layers.Add()(branches))


def mobileone_s0() -> keras.Model:
    """MobileOne-S0 (Vasu et al., 2023)."""
    inputs = keras.Input((SIZE, SIZE, 3))
    plain = {"padding": "same", "use_bias": False}
    x = _mobileone_block(inputs, lambda size: layers.Conv2D(48, size, 2, **plain), 3, 2, 1)
    for filters, blocks in ((48, 2), (128, 8), (256, 10), (1024, 1)):
        for block in range(blocks):
            strides = 1 if block else 2
            x = _mobileone_block(x, lambda size, s=strides: layers.DepthwiseConv2D(size, s, **plain), 3, strides, 4)
            x = _mobileone_block(x, lambda size, f=filters: layers.Conv2D(f, size, **plain), 1, 1, 4)
    return keras.Model(inputs, layers.Dense(1000)(layers.GlobalAveragePooling2D()(x)), name="mobileone_s0")


def _of(make: Callable[..., keras.Model], **serving: bool) -> tuple[Callable[[], keras.Model], Callable[[], int]]:
    given = {"input_shape": (SIZE, SIZE, 3), "pretrained": None}
    return (lambda: make(**given)), (lambda: linear_layers(make(**given, **serving)))


NETWORKS: dict[str, tuple[Callable[[], keras.Model], Callable[[], int]]] = {
    "RepVGG-A0": (repvgg_a0, lambda: 22 + 1),
    "MobileOne-S0": (mobileone_s0, lambda: 1 + 2 * 21 + 1),
    "YOLO-NAS S": _of(kecam.yolov8.YOLO_NAS_S, use_reparam_conv=False),
    "FastViT-T8": _of(kecam.fastvit.FastViT_T8, deploy=True),
    "FastViT-SA12": _of(kecam.fastvit.FastViT_SA12, deploy=True),
    "RepViT-M0.9": _of(kecam.repvit.RepViT_M09, deploy=True),
}
"""The networks, each with how many linear layers its authors serve."""


def linear_layers(model: keras.Model) -> int:
    return sum(role_of(layer) is Role.LINEAR for layer in model._flatten_layers())


def megabytes(model: keras.Model) -> str:
    return f"{4e-6 * model.count_params():.1f}"


def latencies(models: Mapping[str, keras.Model], inputs: Any, repeats: int) -> Mapping[str, list[float]]:
    """Milliseconds of one call of each model, a list over the repeats."""
    calls = {name: tf.function(lambda x, model=model: model(x, training=False)) for name, model in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(-3, repeats):
        first = repeat % len(models)
        for name in [*models][first:] + [*models][:first]:
            started = time.perf_counter()
            keras.tree.map_structure(lambda tensor: tensor.numpy(), calls[name](inputs))
            if repeat >= 0:
                found[name].append(1000 * (time.perf_counter() - started))
    return found


def rows(name: str, repeats: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is said of one network in either table."""
    make, published = NETWORKS[name]
    model = make()
    randomize(model)
    folded = kerasbn.fold(model, merge_branches=False)
    plan = kerasbn.plan(model, position="none", dropout="none", fold=True)
    merged = plan.apply()
    reasons = Counter(skip.reason.value for skip in plan.skips)
    images = np.random.default_rng(1).normal(size=(2, SIZE, SIZE, 3)).astype("float32")
    counted = [str(count(each)) for each in (model, folded, merged) for count in (linear_layers, normalizations_in)]
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    left = (name, *counted, str(published()), why, verdict(model, merged, images))
    models = {"source": model, "folded": folded, "merged": merged}
    times = latencies(models, tf.constant(images[:1]), repeats)
    medians = [f"{statistics.median(times[each]):.1f}" for each in models]
    ratio = [
        f"{statistics.median(one / other for one, other in zip(times['merged'], times[each], strict=True)):.2f}"
        for each in ("source", "folded")
    ]
    return left, (name, *medians, *ratio, *map(megabytes, models.values()))


def normalizations_in(model: keras.Model) -> int:
    return len(normalizations(model))


@click.command(help=__doc__)
@click.option("--network", "chosen", multiple=True, type=click.Choice([*NETWORKS]), help="All by default.")
@click.option("--repeats", default=41, show_default=True, type=click.IntRange(1), help="Repeats of the latencies.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("docs/support/merge_branches.md"), show_default=True
)
def main(chosen: tuple[str, ...], repeats: int, output: Path) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    left, fast = [], []
    for name in chosen or NETWORKS:
        counted, timed = rows(name, repeats)
        left.append(counted)
        fast.append(timed)
        click.echo(f"{' | '.join(counted)}\n{' | '.join(timed)}")
        keras.backend.clear_session()
        gc.collect()
    tables = (
        Table(
            "What is left",
            (
                *("network", "linear", "BN", "linear, folded", "BN, folded"),
                *("linear, merged", "BN, merged", "published", "left, why", "difference"),
            ),
            tuple(left),
        ),
        Table(
            "Latency and weights",
            (
                *("network", "source, ms", "folded, ms", "merged, ms", "merged : source", "merged : folded"),
                *("source, MB", "folded, MB", "merged, MB"),
            ),
            tuple(fast),
            notes=f"Medians of {repeats} repeats, one image. The machine is shared: from one run to the next ratios "
            "moved by 0.1.",
        ),
    )
    if not chosen:
        used = ", ".join(f"{name} {version(name)}" for name in ("keras", "keras-cv-attention-models", "kerasbn"))
        output.write_text(
            "# Parallel linear branches, merged\n\n"
            "Made by `python tools/merge_branches.py`, which says what is measured\n"
            f"({used}).\n\n{machine()}\n\n" + "\n".join(table.markdown() for table in tables)
        )


if __name__ == "__main__":
    sys.exit(main())
