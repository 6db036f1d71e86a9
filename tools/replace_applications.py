"""Every network of `keras.applications` with batch normalization, replaced: the same, and back again.

    python tools/replace_applications.py       # writes docs/support/replace_applications.md, some minutes

Random weights, the smallest input that the network takes; gamma of both signs, gamma and variance over decades; SGD
with momentum, its slots random. "kerasbn's": by `norm=None`, and "epsilon": by Keras's own with ten times the epsilon;
each with how many were replaced and the greatest difference at inference from the source's outputs, relative to the
greatest output; the bound is 1e-6, or 30 times what a relative change of 1e-6 in the input does where that is more.
"back": from kerasbn's to a Keras's like the source's: outputs, weights, statistics and slots bit for bit. "groups": by
`GroupNormalization()`, without data and fitted on 64 inputs: the root mean square of the change of the outputs,
relative to theirs. "slots": those of all weights but gamma and beta are there in every one.
"""

from __future__ import annotations

import gc
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np

import kerasbn
from fold_applications import networks, smallest
from networks import difference, normalizations, outputs, randomize

_EXAMPLES = 64


def source(name: str) -> keras.Model | None:
    """A network that is compiled, with slots as after training; `None` if it has no batch normalization."""
    model = smallest(name)
    if not normalizations(model):
        return None
    randomize(model)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    generator = np.random.default_rng(2)
    for slot in model.optimizer.momentums:
        slot.assign(generator.normal(size=slot.shape))
    return model


def slots(model: keras.Model) -> list[tuple[str, Any]]:
    """The slots of all weights but those of normalizations, by the kind of weight, in the order of the model."""
    inside = {id(weight) for norm in normalizations(model) for weight in norm.weights}
    inside |= {
        id(weight)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.GroupNormalization)
        for weight in layer.weights
    }
    pairs = zip(model.trainable_variables, model.optimizer.momentums, strict=True)
    return [(weight.name, np.asarray(slot)) for weight, slot in pairs if id(weight) not in inside]


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether arrays are the same bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def moved(expected: list[Any], got: list[Any]) -> float:
    """The root mean square of a change, relative to that of what is changed."""
    pairs = [*zip(expected, got, strict=True)]
    return float(np.sqrt(sum(np.sum((b - a) ** 2) for a, b in pairs) / sum(np.sum(a**2) for a, _ in pairs)))


def row(name: str) -> str | None:
    """The row of one network."""
    model = source(name)
    if model is None:
        return None
    count, kept = len(normalizations(model)), slots(model)
    inputs = np.random.default_rng(1).uniform(0, 255, size=(_EXAMPLES, *model.input_shape[1:])).astype("float32")
    expected = outputs(model, inputs)
    bound = max(1e-6, 30 * difference(expected, outputs(model, inputs * np.float32(1 + 1e-6))))
    all_kept = True

    def replaced(of: keras.Model, norm: Any, data: Any = None) -> tuple[keras.Model, str]:
        nonlocal all_kept
        plan = kerasbn.plan(of, existing="replace", position="none", dropout="none", norm=norm, data=data)
        found = sum(edit.kind == "replace" for edit in plan.edits)
        result = plan.apply()
        now = slots(result)
        all_kept &= [each for each, _ in now] == [each for each, _ in kept] and same(
            [slot for _, slot in now], [slot for _, slot in kept]
        )
        why = "" if found == count else f" (**{count - found} stay**)"
        return result, f"{found}{why}"

    def verdict(result: keras.Model) -> str:
        found = difference(expected, outputs(result, inputs))
        return f"{found:.0e}" if found <= bound else f"**WRONG** by {found:.0e}"

    epsilon = normalizations(model)[0].epsilon
    ours, how_many = replaced(model, None)
    cells = [f"{how_many}, {verdict(ours)}"]
    back, _ = replaced(ours, keras.layers.BatchNormalization(epsilon=epsilon))
    has_gamma = all(norm.scale and norm.epsilon == epsilon for norm in normalizations(model))
    exact = same(expected, outputs(back, inputs))
    exact &= not has_gamma or (
        same(model.get_weights(), back.get_weights())
        and same([*map(np.asarray, model.optimizer.variables)], [*map(np.asarray, back.optimizer.variables)])
    )
    del ours, back
    other, how_many = replaced(model, keras.layers.BatchNormalization(epsilon=epsilon * 10))
    cells += [
        f"{how_many}, {verdict(other)}",
        ("yes" if has_gamma else "yes, with a gamma of 1") if exact else "**NO**",
    ]
    del other
    plain, how_many = replaced(model, keras.layers.GroupNormalization())
    fitted, _ = replaced(model, keras.layers.GroupNormalization(), inputs)
    cells += [how_many, *(f"{moved(expected, outputs(each, inputs)):.2g}" for each in (plain, fitted))]
    cells.append("kept" if all_kept else "**LOST**")
    return f"| {name} | {model.input_shape[1]} | {count} | {' | '.join(cells)} |"


@click.command(help=__doc__)
@click.option("--network", "chosen", multiple=True, help="A network of keras.applications; all by default.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("docs/support/replace_applications.md"), show_default=True
)
def main(chosen: tuple[str, ...], output: Path) -> None:
    rows = []
    for name in chosen or networks():
        if made := row(name):
            rows.append(made)
            click.echo(made)
        gc.collect()
    if not chosen:
        used = f"keras {keras.__version__}, kerasbn {version('kerasbn')}"
        head = "| network | input | BN | kerasbn's | epsilon | back | groups | without data | fitted | slots |"
        output.write_text(
            "# keras.applications, their normalization replaced\n\n"
            f"Made by `python tools/replace_applications.py`, which says what is measured\n({used}).\n\n"
            + "\n".join([head, "| --- | ---: | ---: | --- | --- | --- | ---: | ---: | ---: | --- |", *rows])
            + "\n\nNetworks with random weights yield much the same for all inputs, which beta alone fits; so those\n"
            "figures say that the fit is done, not how well group normalization does in a trained network.\n"
        )


if __name__ == "__main__":
    main()
