"""In batches of one group normalization wins from scratch, and frozen BN in fine-tuning; from two on BN as it is.

Three convolutions on scikit-learn's digits, SGD with momentum 0.9, every network given the same number of
examples, few of them. From scratch: without normalization, with what `kerasbn.rewrite` inserts, with
`keras.layers.GroupNormalization(groups=4)` as its `norm`, and with ghost batches of 4 where batches are larger.
Fine-tuned, each with a new last layer. On data of the same kind: a network trained to tell odd digits from even ones,
in batches of 32, goes on to tell all ten in small ones: as it is, and frozen by `kerasbn.freeze`. On other data: one
trained on digits of low contrast goes on with those of full contrast; frozen, it is held to statistics that the new
data does not have. Each at the best of its rates, chosen on the validation part: frozen, a network bears lower ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras

import kerasbn
import kerasbn.layers
from reporting import Table
from reproduction import data
from reproduction.comparison import FIRST_SWEEP_SEED, Budget
from reproduction.data import Dataset
from reproduction.intervals import mean
from reproduction.networks import Make, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent
from reproduction.training import Trainer

BATCHES = (1, 2, 4, 32)
RATES = (0.003, 0.01, 0.03, 0.1)
FINE_TUNING_RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
EXAMPLES = 4096
FINE_TUNED_ON = 1024
SGD = {"class_name": "SGD", "config": {"momentum": 0.9}}


def run(budget: Budget) -> Report:
    """Try it."""
    digits = data.digit_images()
    others = {
        "Fine-tuned on data of the same kind": digits.relabelled(lambda labels: labels % 2),
        "Fine-tuned on other data": digits.mapped(lambda images: 0.3 * images + 0.6),
    }
    plain = from_seed(_network, SGD)
    ghosts = kerasbn.layers.BatchNormalization(momentum=0.95, zero_debias=True, virtual_batch_size=4)
    scratch: dict[str, Make] = {
        "none": plain,
        "BN": rewritten(plain),
        "BN, ghost batches of 4": rewritten(plain, norm=ghosts),
        "GroupNormalization": rewritten(plain, norm=keras.layers.GroupNormalization(groups=4)),
    }
    batches = BATCHES[2:] if budget.quick else BATCHES
    found = {"From scratch": _accuracies(scratch, digits, batches, 256 if budget.quick else EXAMPLES, RATES, budget)}
    for title, other in others.items():
        trained = {
            seed: _trained_on(other, rewritten(plain)(seed), budget)
            for seed in (FIRST_SWEEP_SEED, *range(budget.seeds))
        }
        tuned: dict[str, Make] = {
            "BN": _going_on(trained, lambda model: None),
            "BN, statistics frozen": _going_on(trained, lambda model: kerasbn.freeze(model, what="statistics")),
            "BN, frozen": _going_on(trained, lambda model: kerasbn.freeze(model)),
        }
        examples = 128 if budget.quick else FINE_TUNED_ON
        found[title] = _accuracies(tuned, digits, batches, examples, FINE_TUNING_RATES, budget)
    tables, panels = [], []
    for title, by_name in found.items():
        means = {name: [mean(values) for values in by_batch] for name, by_batch in by_name.items()}
        tables.append(
            Table(
                f"{title}: test accuracy, %",
                ("network", *(f"batches of {batch}" for batch in batches)),
                tuple((name, *(one.text(percent) for one in row)) for name, row in means.items()),
                f"Mean of {budget.seeds} seeds with a t interval.",
            )
        )
        lines = [banded(name, batches, row) for name, row in means.items()]
        panels.append(Panel(title, "batch size", "test accuracy", lines, log="x"))
    return Report(tables, panels)


def _network() -> keras.Model:
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for width in (16, 32, 32):
        model.add(keras.layers.Conv2D(width, 3, padding="same", activation="relu"))
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(10))
    return model


def _trained_on(digits: Dataset, model: keras.Model, budget: Budget) -> keras.Model:
    model.optimizer.learning_rate = 0.03
    model.fit(*digits.train, batch_size=32, epochs=1 if budget.quick else 15, verbose=0)
    return model


def _going_on(trained: Mapping[int, keras.Model], prepare: Callable[[keras.Model], object]) -> Make:
    def make(seed: int) -> keras.Model:
        model = kerasbn.rewrite(trained[seed], position="none", dropout="none")
        keras.utils.set_random_seed(seed)
        head = model.layers[-1]
        head.kernel.assign(keras.initializers.GlorotUniform()(head.kernel.shape))
        head.bias.assign(keras.ops.zeros_like(head.bias))
        prepare(model)
        model.compile(keras.optimizers.get(SGD), trained[seed].loss)
        return model

    return make


def _accuracies(
    makes: Mapping[str, Make],
    digits: Dataset,
    batches: tuple[int, ...],
    examples: int,
    rates: tuple[float, ...],
    budget: Budget,
) -> dict[str, list[list[float]]]:
    """The test accuracies of each seed, by batch size, at the rate that is best for a seed of its own."""
    found: dict[str, list[list[float]]] = {}
    for name, make in makes.items():
        for batch in batches:
            steps = examples // batch
            trainer = Trainer(make(FIRST_SWEEP_SEED), digits, every=steps, batch_size=batch)
            tried = {
                rate: trainer.run(make(FIRST_SWEEP_SEED), rate, FIRST_SWEEP_SEED, steps).validation[-1]
                for rate in budget.rates(rates)
            }
            best = max(tried, key=lambda rate: tried[rate])
            runs = [trainer.run(make(seed), best, seed, steps) for seed in range(budget.seeds)]
            found.setdefault(name, []).append([float(one.test[-1]) for one in runs])
    return found
