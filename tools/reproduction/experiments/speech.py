"""Sequence-wise BN trains five recurrent layers in far fewer steps, three in somewhat fewer, one in no fewer.

So `recurrent="auto"` normalizes recurrent layers of which three or more stand one upon another. The
networks have Deep Speech 2's shape (Amodei et al., 2015): two convolutions over a spectrogram, normalized in
all of them; LSTMs of 32 units in both directions; CTC. They hear digits spelt in tones, at any pitch,
pace and loudness, in noise: 2000 clips, in batches of 32, padded and masked. Adam, with gradients clipped to a
norm of 1.

- Five layers: with BN all runs reach the loss, without it half of them do in 500 steps. In the sweep BN bears a rate
  of 0.006, at which 48 % of the digits are wrong without it. What errors the runs without it would end at is not seen.
- Three: somewhat fewer steps, by an interval that begins at 1. The errors tell nothing: the sweep chose 0.015
  without BN, by 0.3 points, and one of the six runs came apart there. Looked at afterwards, the same seeds at 0.006,
  which was run for the steps, end at 4.7 [3.1, 6.2], as with BN.
- One: neither fewer steps nor a lower error, and in the sweep BN is slower at the two lowest rates.
- Higher rates with three layers: none. Those of the sweep bear 0.015 without BN, and not with it.

Not tried: two layers and four, GRU, longer training. With SGD and Nesterov momentum there was a pilot alone, three
layers from one seed at rates of 0.1 and 0.3, where BN gained nothing.

In Deep Speech 2 the word error rate of one recurrent layer is 14.40 with BN and 13.55 without, and lower with
BN for more layers; Laurent et al. (2016) find training faster, and generalization no better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import click
import keras
import numpy as np

from reporting import Table
from reproduction.comparison import FIRST_SWEEP_SEED, Budget
from reproduction.data import Dataset
from reproduction.examples import example
from reproduction.intervals import mean, median, ratio_of_medians
from reproduction.networks import Make, from_seed, rewritten
from reproduction.report import Panel, Report, banded, percent, times
from reproduction.training import Run, Trainer

DEPTHS = (1, 3, 5)
RATES = (0.001, 0.0025, 0.006, 0.015)
NETWORKS = {"no BN": "none", "sequence-wise BN": "sequence_wise"}
OPTIMIZER = {"class_name": "Adam", "config": {"global_clipnorm": 1.0}}
STEPS, EVERY, BATCH = 500, 20, 32
TARGET = 3.0
"""The loss to be reached, in nats a clip, where it begins at 13: about every fifth digit is wrong there."""

speech = example("speech")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one training run went.

    Attributes:
        run: The log-likelihoods at each evaluation.
        validation: The digit error rate on the validation part in the end.
        test: That on the test part.
    """

    run: Run
    validation: float
    test: float

    def steps(self, part: str = "test") -> float:
        """The steps to the loss that is to be reached."""
        return self.run.steps_to(-TARGET, STEPS, part)


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out for a network.

    Attributes:
        name: The name in the tables.
        depth: The number of recurrent layers.
        swept: The outcomes of the seeds of the sweep, by rate.
        fast: The rate that takes the fewest steps to the loss.
        accurate: The rate that has the lowest error in the end.
        reported: The outcomes of the seeds reported, at these rates.
    """

    name: str
    depth: int
    swept: Mapping[float, Sequence[Outcome]]
    fast: float
    accurate: float
    reported: Mapping[float, Sequence[Outcome]]

    @property
    def steps(self) -> list[float]:
        """The steps to the loss, by seed."""
        return [outcome.steps() for outcome in self.reported[self.fast]]

    @property
    def errors(self) -> list[float]:
        """The error in the end, by seed."""
        return [outcome.test for outcome in self.reported[self.accurate]]


def run(budget: Budget) -> Report:
    """Try it."""
    clips = Dataset(*(speech.clips(count, seed) for seed, count in enumerate((2000, 200, 300))))
    pairs = []
    for depth in DEPTHS[:1] if budget.quick else DEPTHS:
        plain = from_seed(lambda depth=depth: speech.network(depth), OPTIMIZER, keras.losses.CTC)
        networks = {name: rewritten(plain, recurrent=recurrent) for name, recurrent in NETWORKS.items()}
        pairs.append([_result(name, depth, make, clips, budget) for name, make in networks.items()])
    return Report(
        [_deciding_table(pairs), _sweep_table(pairs)],
        [*(_loss_panel(pair) for pair in pairs), _error_panel(pairs)],
    )


def _result(name: str, depth: int, make: Make, clips: Dataset, budget: Budget) -> Result:
    trainer = Trainer(make(0), clips, EVERY, BATCH, lambda labels, logits: -keras.losses.ctc(labels, logits), xla=True)

    def trained(rate: float, seeds: Iterable[int]) -> list[Outcome]:
        outcomes = []
        for seed in seeds:
            one = trainer.run(make(seed), rate, seed, budget.steps(STEPS))
            errors = [
                speech.error_rate(trainer.model.predict(part[0], verbose=0), part[1])
                for part in (clips.validation, clips.test)
            ]
            outcomes.append(Outcome(one, *errors))
            click.echo(
                f"{depth} {name}, rate {rate:g}, seed {seed}: {outcomes[-1].steps():.0f} steps, "
                f"loss {-one.test[-1]:.2f}, error {percent(outcomes[-1].test)}",
                err=True,
            )
        return outcomes

    sweep_seeds = range(FIRST_SWEEP_SEED, FIRST_SWEEP_SEED + budget.sweep_seeds)
    swept = {rate: trained(rate, sweep_seeds) for rate in budget.rates(RATES)}
    fast = min(swept, key=lambda rate: (_mean_steps(swept[rate]), _mean_error(swept[rate])))
    accurate = min(swept, key=lambda rate: _mean_error(swept[rate]))
    reported = {rate: trained(rate, range(budget.seeds)) for rate in sorted({fast, accurate})}
    return Result(name, depth, swept, fast, accurate, reported)


def _mean_steps(outcomes: Sequence[Outcome]) -> float:
    return float(np.mean([outcome.steps("validation") for outcome in outcomes]))


def _mean_error(outcomes: Sequence[Outcome]) -> float:
    return float(np.mean([outcome.validation for outcome in outcomes]))


def _deciding_table(pairs: Sequence[Sequence[Result]]) -> Table:
    rows = []
    for pair in pairs:
        for result in pair:
            base, is_base = pair[0], result is pair[0]
            reached = sum(outcome.run.steps_to(-TARGET) < np.inf for outcome in result.reported[result.fast])
            apart = mean(list(np.subtract(result.errors, base.errors)))
            rows.append(
                (
                    *(str(result.depth), result.name, _rate(result, result.fast)),
                    *(median(result.steps).text("{:.0f}".format), f"{reached}/{len(result.steps)}"),
                    "1" if is_base else times(ratio_of_medians(base.steps, result.steps)),
                    *(_rate(result, result.accurate), mean(result.errors).text(percent)),
                    "" if is_base else apart.text(lambda share: f"{100 * share:+.1f}"),
                )
            )
    return Table(
        "With and without",
        (
            *("recurrent layers", "network", "rate", f"steps to a loss of {TARGET:g}", "reached", "times fewer"),
            *("rate", f"digit error, % after {STEPS} steps", "difference"),
        ),
        tuple(rows),
        f"Of {len(pairs[0][0].steps)} seeds, on the test part. Steps: the median, evaluated every {EVERY} steps, with "
        f"a bootstrap interval; a run that has not arrived after {STEPS} steps counts as {STEPS}. Error: the mean with "
        "a t interval, and its difference from that without BN by seed, in points: both start from the same weights "
        "and see the same batches. Each at the rate that suits it best. *The first or last rate that was tried.",
    )


def _rate(result: Result, rate: float) -> str:
    return f"{rate:g}" + ("*" if rate in (min(result.swept), max(result.swept)) else "")


def _sweep_table(pairs: Sequence[Sequence[Result]]) -> Table:
    rows = [
        (
            *(str(result.depth), result.name),
            *(f"{_mean_steps(ones):.0f}, {percent(_mean_error(ones))}" for ones in result.swept.values()),
        )
        for pair in pairs
        for result in pair
    ]
    return Table(
        "Rates",
        ("recurrent layers", "network", *(f"{rate:g}" for rate in pairs[0][0].swept)),
        tuple(rows),
        f"Steps to a loss of {TARGET:g} and the digit error after {STEPS} steps, %, on the validation part: means over "
        "the seeds of the sweep, which are not those reported.",
    )


def _loss_panel(pair: Sequence[Result]) -> Panel:
    lines = []
    for result in pair:
        curves = np.transpose([-outcome.run.test for outcome in result.reported[result.fast]])
        steps = [EVERY * (number + 1) for number in range(len(curves))]
        lines.append(banded(f"{result.name}, rate {result.fast:g}", steps, [mean(column) for column in curves]))
    return Panel(f"recurrent layers: {pair[0].depth}", "steps", "test loss", lines)


def _error_panel(pairs: Sequence[Sequence[Result]]) -> Panel:
    lines = []
    for results in zip(*pairs, strict=True):
        depths = [result.depth for result in results]
        lines.append(banded(results[0].name, depths, [mean([100 * e for e in result.errors]) for result in results]))
    return Panel("in the end", "recurrent layers", "digit error, %", lines)
