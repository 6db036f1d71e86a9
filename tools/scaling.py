"""What batch normalization costs in data-parallel training: collectives counted in compiled programs, and reckoned on.

    python tools/scaling.py                  # all of docs/support/scaling.md, about half an hour on two cores
    python tools/scaling.py --quick --output /tmp/scaling.md

Counts. JAX compiles a training step (forward, backward, moving statistics; SGD adds no collective) of ResNet-50 for
devices that XLA makes of the CPU. "whole batch" is one `jax.jit` with the batch shared out, as with
`keras.distribution.DataParallel`; "replicas" is `shard_map`, with the mean of the gradients as the last step. What is
counted are the all-reduces of the compiled program, and the bytes that go into them on each device; there is no other
collective in it, or the tool stops. One all-reduce of several tensors is one.

Reckoned. Two all-reduces that wait for each other take twice the latency. One of b bytes over n devices takes
2 log2(n) latencies and 2 b (n - 1) / n through the slowest link: a tree up and down. Gradients are sent while the
backward pass goes on, statistics are waited for.

Accuracy. A small network on digits, whose batch normalization sees ghost batches as large as the share of a device, or
the whole batch, as synchronized.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import click
import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console

import kerasbn
from reporting import Table, machine, spread
from reproduction.data import digit_images

REPORT = Path(__file__).resolve().parent.parent / "docs" / "support" / "scaling.md"
MOST, NONE, SYNCHRONIZED = 8, "none", "kerasbn's, replicas, synchronized"
WHOLE, SHARED = PartitionSpec(), PartitionSpec("data")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"f32": 4, "f64": 8, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1}
NETWORKS = {"servers, 100 Gbit/s and 20 us": (12.5e9, 20e-6), "one machine, 300 GB/s and 4 us": (300e9, 4e-6)}
DEVICES = (8, 64, 512, 4096)
SHARES = (2, 4, 8, 16, 32)
BATCH, EPOCHS = 64, 15
EXAMPLES = 10**9


@dataclasses.dataclass(frozen=True)
class Counted:
    """The all-reduces of a program, and the bytes that each device puts into them."""

    number: int
    bytes: int


def counted(program: str) -> Counted:
    """Count what a compiled program, as text, has of them."""
    found = re.findall(rf"^ .* = (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", program, re.MULTILINE)
    others = {kind for _, kind in found} - {"all-reduce"}
    if others:
        raise click.ClickException(f"The program has collectives that are not counted: {', '.join(sorted(others))}.")
    return Counted(len(found), sum(_bytes(shape) for shape, _ in found))


def _bytes(shape: str) -> int:
    return sum(
        BYTES[kind] * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shape)
    )


# Programs


def network(size: int) -> keras.Model:
    return keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )


def of_kerasbn(model: keras.Model, *, synchronized: bool) -> keras.Model:
    norm = kerasbn.layers.BatchNormalization(synchronized=synchronized)
    return kerasbn.rewrite(model, position="none", existing="replace", norm=norm, dropout="none")


def without(model: keras.Model) -> keras.Model:
    return kerasbn.rewrite(model, position="none", existing="remove", dropout="none")


def step_of(model: keras.Model) -> Callable[..., Any]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(weights: Any, state: Any, x: Any, y: Any) -> Any:
        def call(weights: Any) -> Any:
            outputs, after = model.stateless_call(weights, state, x, training=True)
            return loss(y, outputs), after

        return jax.grad(call, has_aux=True)(weights)

    return step


def program(model: keras.Model, devices: int, batch: int, *, replicas: bool) -> str:
    """A training step, compiled for so many devices and examples on each."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    step = whole_step = step_of(model)
    if replicas:

        def local(weights: Any, state: Any, x: Any, y: Any) -> Any:
            gradients, after = whole_step(weights, state, x, y)
            return jax.lax.pmean(gradients, "data"), [each[None] for each in after]

        specs = (WHOLE, WHOLE, SHARED, SHARED)
        step = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=(WHOLE, SHARED), check_vma=False)
    whole, shared = (NamedSharding(mesh, spec) for spec in (WHOLE, SHARED))
    given = (
        [_shape(each, whole) for each in model.trainable_variables],
        [_shape(each, whole) for each in model.non_trainable_variables],
        jax.ShapeDtypeStruct((batch * devices, *model.input_shape[1:]), "float32", sharding=shared),
        jax.ShapeDtypeStruct((batch * devices,), "int32", sharding=shared),
    )
    outputs = (whole, shared if replicas else whole)
    return str(jax.jit(step, out_shardings=outputs).lower(*given).compile().as_text())


def _shape(variable: keras.Variable, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(tuple(variable.shape), variable.dtype, sharding=sharding)


Programs = dict[tuple[str, int, int], Counted]


def programs(size: int, devices: Sequence[int], console: Console) -> Programs:
    """The counts by kind of normalization, devices, and examples on each."""
    source = network(size)
    kinds = {
        NONE: (without(source), False),
        "Keras's, whole batch": (source, False),
        "kerasbn's, whole batch": (of_kerasbn(source, synchronized=False), False),
        "kerasbn's, replicas": (of_kerasbn(source, synchronized=False), True),
        SYNCHRONIZED: (of_kerasbn(source, synchronized=True), True),
    }
    found = {}
    for name, (model, replicas) in kinds.items():
        larger = [(devices[0], 4)] if name == SYNCHRONIZED else []
        for number, batch in [*((number, 2) for number in devices[: 1 if name == NONE else None]), *larger]:
            started = time.perf_counter()
            found[name, number, batch] = counted(program(model, number, batch, replicas=replicas))
            seconds = time.perf_counter() - started
            console.print(f"{name}, {number} devices, {batch} each: {found[name, number, batch]}, {seconds:.0f} s")
    return found


def counts_table(found: Programs, layers: int, channels: int) -> Table:
    first = min(number for _, number, _ in found)
    none = found[NONE, first, 2]
    rows = [
        (
            name,
            f"{number} x {batch}",
            str(each.number),
            f"{each.bytes / 1e6:.3f}",
            f"{(each.number - none.number) / layers:.2f}",
            f"{(each.bytes - none.bytes) / 4 / channels:.2f}",
        )
        for (name, number, batch), each in found.items()
    ]
    headings = (
        "batch normalization",
        "devices x examples",
        "all-reduces",
        "MB",
        "a layer more",
        "floats a channel more",
    )
    return Table(
        f"Counted: a training step of ResNet-50, {layers} normalizations of {channels} channels in all",
        headings,
        tuple(rows),
        notes=(
            'The number does not depend on the devices nor on the batch, the bytes go with the channels alone. "More" '
            "is more than without batch normalization; gamma and beta have gradients of 2 floats a channel, which are "
            "in it. On CPU devices; for GPUs XLA may join more all-reduces into one."
        ),
    )


# Reckoned from the counts


def seconds(number: int, size: float, devices: int, bandwidth: float, latency: float) -> float:
    """All-reduces one after another, of so many bytes in all."""
    return number * 2 * math.log2(devices) * latency + 2 * size * (devices - 1) / devices / bandwidth


def reckoned_tables(layers: int, channels: int, weights: int) -> Iterator[Table]:
    rows = []
    for name, (bandwidth, latency) in NETWORKS.items():
        for devices in DEVICES:
            ways = [(3, 4), (2, 4)]
            waits = [
                seconds(number * layers, 4 * floats * channels, devices, bandwidth, latency) for number, floats in ways
            ]
            gradient = seconds(1, 4 * weights, devices, bandwidth, latency)
            rows.append((name, str(devices), *(f"{1000 * each:.2f}" for each in (gradient, *waits))))
    yield Table(
        "Reckoned: milliseconds a step, up to 4,096 devices",
        ("network", "devices", "gradient of all weights", "statistics, JAX", "statistics, TensorFlow and torch"),
        tuple(rows),
        notes=(
            "Statistics of all layers, synchronized, forward and backward: three all-reduces a layer with JAX, two "
            "elsewhere, where float64 takes both moments at once. It is latency: the bytes are under a hundredth of "
            "the gradient's."
        ),
    )


def calibration_table(layers: int, channels: int, size: int, rounds: int) -> Table:
    model = network(size)
    forward = jax.jit(lambda x: model.stateless_call(model.trainable_variables, model.non_trainable_variables, x)[0])
    x = np.zeros((32, size, size, 3), "float32")
    rates = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        forward(x).block_until_ready()
        rates.append(len(x) / (time.perf_counter() - started))
    rate = statistics.median(rates[1:])
    rows = []
    for passes in (1, layers):
        for devices in (1, *DEVICES):
            hours = passes * EXAMPLES / (rate * devices) / 3600
            megabytes = passes * 8 * (2 * channels + layers) / passes / 1e6
            rows.append((str(passes), str(devices), f"{passes * EXAMPLES:.1e}", f"{megabytes:.2f}", f"{hours:,.1f}"))
    return Table(
        f"Reckoned: statistics over {EXAMPLES:,} examples",
        ("passes", "devices", "examples read", "MB sent by a device, in all", "hours"),
        tuple(rows),
        notes=(
            f"At {spread(rates[1:], 1)} examples of {size}x{size} a second in one forward pass of ResNet-50 on one "
            "device, measured here: put in the rate of yours, the hours go with it. One pass is `passes=1`; "
            f"{layers} are the most that a network of {layers} normalizations, one behind another, can need for exact "
            "ones. What is sent is count, mean and squares, once a layer."
        ),
    )


# Accuracy


def accuracies(share: int | None, seeds: int) -> list[float]:
    """On the test part, in percent: with ghost batches as large as a share, or whole batches."""
    images = digit_images()
    found = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((8, 8, 1))]
        for filters in (16, 32):
            layers += [
                keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
                kerasbn.layers.BatchNormalization(momentum=0.9, virtual_batch_size=share),
                keras.layers.ReLU(),
            ]
        model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        steps = EPOCHS * math.ceil(len(images.train[0]) / BATCH)
        rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
        model.fit(*images.train, batch_size=BATCH, epochs=EPOCHS, verbose=0)
        found.append(100 * model.evaluate(*images.test, verbose=0, return_dict=True)["accuracy"])
    return found


def accuracy_table(seeds: int, console: Console) -> Table:
    rows = []
    for share in (*SHARES, None):
        found = accuracies(share, seeds)
        rows.append((str(share) if share else f"{BATCH}, synchronized", str(BATCH // (share or 1)), spread(found, 1)))
        console.print("  ".join(rows[-1]))
    return Table(
        f"Measured: accuracy on digits, a batch of {BATCH} shared out",
        ("examples a device", "devices", "test accuracy, %"),
        tuple((each[0], each[1] if "sync" not in each[0] else "any", each[2]) for each in rows),
        notes=f"Median (min..max) of {seeds} seeds, {EPOCHS} epochs. Not synchronized but for the last row.",
    )


def document(described: str, tables: Sequence[Table]) -> str:
    intro = (
        "Made by `python tools/scaling.py`, which says how it counts, reckons and measures.\n\n"
        "- Under `keras.distribution` the statistics are those of the whole batch, synchronized or not, and kerasbn's "
        "layer takes fewer all-reduces than Keras's.\n"
        "- Replicas (`shard_map`, `pmap`, `tf.distribute`, `torch.distributed`) share statistics with "
        "`synchronized=True`: two all-reduces a layer with TensorFlow and torch, one forward for both moments and one "
        "backward; three with JAX, which has no float64 by default, and in float32 the variance has to wait for the "
        "mean.\n"
        "- What synchronizing costs is latency, and grows with the layers and the logarithm of the devices, not with "
        "the batch. What it brings is in the table of accuracies."
    )
    return f"# Batch normalization at scale\n\n{intro}\n\n{described}\n\n" + "\n".join(
        table.markdown() for table in tables
    )


@click.command()
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="Seeds of the accuracies.")
@click.option("--size", default=32, show_default=True, type=click.IntRange(32), help="Width of the images.")
@click.option("--devices", default=(2, 4, 8), show_default=True, multiple=True, type=click.IntRange(2, MOST))
@click.option("--quick", is_flag=True, help="Two devices alone, one seed; not for docs.")
@click.option("--output", default=REPORT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(seeds: int, size: int, devices: tuple[int, ...], quick: bool, output: Path) -> None:
    """Count what batch normalization costs in data-parallel training, and reckon on."""
    if quick and output == REPORT:
        raise click.UsageError("A quick run is not for docs: say with --output where it goes.")
    console = Console() if sys.stdout.isatty() else Console(width=160)
    described = machine("jax")
    model = network(size)
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    layers, channels = len(norms), sum(each.gamma.shape[0] for each in norms)
    tables = [
        counts_table(programs(size, devices[:1] if quick else devices, console), layers, channels),
        *reckoned_tables(layers, channels, sum(math.prod(each.shape) for each in model.trainable_variables)),
        accuracy_table(1 if quick else seeds, console),
        calibration_table(layers, channels, 224, 1 if quick else 5),
    ]
    output.write_text(document(described, tables))
    for table in tables:
        console.print(table.rich())


if __name__ == "__main__":
    main()
