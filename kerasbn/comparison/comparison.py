"""Compare rewrites of a model by training them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.comparison.batches import Batches, check_again_and_again, check_ends
from kerasbn.comparison.budgets import Budget
from kerasbn.comparison.candidates import Candidates, candidates_of
from kerasbn.comparison.halving import Lane, Race
from kerasbn.comparison.result import Comparison, Row
from kerasbn.comparison.training import Contestant, contestant
from kerasbn.errors import OptionError
from kerasbn.graph.read import check_model
from kerasbn.progress import steps as steps_shown
from kerasbn.range_test.learning_rate import find_learning_rate
from kerasbn.range_test.restoring import restored

_ALIKE = 1.5
"""Rates that differ by less are one."""


def compare(
    model: keras.Model,
    data: Any,
    *,
    validation_data: Any,
    candidates: Candidates = ("none", "auto", "before", "after"),
    rates: str | Sequence[float] = "find",
    budget: str | int = "2 min",
    seeds: int | Sequence[int] = 3,
    monitor: str | None = None,
    batch_size: int = 32,
) -> Comparison:
    """Find out which rewrite is the best for a model on its data, by training each a little.

    Each candidate is trained from the weights that the model has now, with several seeds. What a seed decides is the
    order of the batches and what is random in layers such as Dropout, the same for all candidates. They are looked at
    after an eighth, a quarter, a half and all of the budget, and one that the seeds show to be behind goes early. The
    model, its optimizer and the state of random numbers are as before, also after an error or an interrupt.

    Example:

    ```python
    comparison = kerasbn.compare(model, (x, y), validation_data=held_out, budget=20)  # steps
    print(comparison)
    model = kerasbn.rewrite(model, **comparison.best)
    ```

    Args:
        model: A compiled Keras model, as for `kerasbn.rewrite`.
        data: What to train on: a tuple `(x, y)` or `(x, y, sample_weight)` of arrays, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. Batches of the latter two are shuffled a little. One that shuffles by itself gives
            each run another order, which no seed decides: leave its `shuffle` out.
        validation_data: What to compare on, likewise. It has to end.
        candidates: What to compare: `"none"`, the model as it is; `"auto"`, `"before"`, `"after"`, the positions;
            `"bn-x5"`, `"bn-x30"`, the recipes; and dictionaries of options of `kerasbn.rewrite`; or a
            dictionary of those by names of your own.
        rates: Which learning rates each is trained at, until the better one shows: `"find"`, what
            `kerasbn.find_learning_rate` suggests for it and the rate it is compiled with; `"compiled"`, the latter; or
            numbers. Defaults to `"find"`. A schedule is kept as it is.
        budget: How long: a number of steps for each candidate and seed, or the time for training all of them together.
            What is compiled, and the range tests, come on top of that. Defaults to `"2 min"`.
        seeds: The number of seeds, or the seeds. Defaults to `3`.
        monitor: What to compare, by its name in the logs: `"loss"`, or a metric that the model is compiled with.
            Defaults to `None`: the first metric of which Keras knows whether more is better, or else the loss.
        batch_size: How many examples of arrays make a batch. Defaults to `32`.

    Returns:
        A `Comparison`: print it, and rewrite with its `best`. If it was interrupted, it is about what was trained till
        then.

    Raises:
        OptionError: if the model was not compiled, data is missing or does not fit, an argument is not valid, the
            budget is too small for a pass over the data, or all candidates diverge or come to the same plan.
        UnsupportedModelError: if the model cannot be rewritten.
        KeyboardInterrupt: if it is interrupted before there is anything to say.

    Reference:

    - [Jamieson and Talwalkar, 2016](https://arxiv.org/abs/1502.07943), successive halving.
    """
    check_model(model)
    _check_compiled(model)
    numbers = _checked_seeds(seeds)
    spent = Budget.of(budget)
    _check_rates(rates)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"Option batch_size is {batch_size!r}; it must be a positive number of examples.")
    check_again_and_again(validation_data, "validation_data")
    check_ends(validation_data, "validation_data")
    batches = Batches(data, batch_size)
    if spent.steps is not None and spent.steps < (batches.count or 0):
        raise OptionError(
            f"Option budget is {spent.steps} steps, and a pass over the data has {batches.count}. Give at least "
            "that, or a part of the data."
        )
    chosen = candidates_of(model, candidates)
    validation = {"x": validation_data}
    if isinstance(validation_data, tuple):
        named = zip(("x", "y", "sample_weight"), validation_data, strict=False)
        validation = {**dict(named), "batch_size": batch_size}
    with restored(model), contextlib.ExitStack() as stack, steps_shown(2 * len(chosen) + 4) as step:
        contestants = []
        for candidate in chosen:
            step(f"Compiling {candidate.name}")
            contestants.append(stack.enter_context(contestant(candidate, batches, validation)))
        measure = _monitored(contestants[0], monitor)
        found, notes = {}, []
        for each in contestants:
            step(f"Finding a rate for {each.candidate.name}")
            found[each], note = _rates_for(each, rates, batches)
            notes += note
        sign = 1 if _greater_is_better(contestants[0], measure) else -1
        race = Race(found, numbers, spent, measure, sign, batches.count)
        race.run(step)
    return _concluded(model, race, measure, sign, notes)


def _concluded(model: keras.Model, race: Race, monitor: str, sign: int, notes: Sequence[str]) -> Comparison:
    compiled = race.lanes[0].contestant
    rows = tuple(_row(lane, race, sign) for lane in race.lanes)
    if all(row.outcome == "diverged" for row in rows):
        tried = ", ".join(sorted({f"{arm.rate:.2g}" for lane in race.lanes for arm in lane.arms if arm.rate}))
        raise OptionError(
            f"The loss of no candidate for model {model.name!r} stays finite on option validation_data"
            f"{f' at the learning rates {tried}' if tried else ''}. Pass lower rates, such as rates=(1e-4, 1e-3)."
        )
    told = list(dict.fromkeys(notes))
    if monitor == "loss" and compiled.model.losses:
        told.append(
            "The loss has the penalties of regularizers in it, which candidates change as well; name a metric as "
            "monitor to leave them out."
        )
    if race.is_cut:
        told.append(f"It was interrupted; what is said here is that of {race.looks[-1]} steps.")
    return Comparison(model.name, monitor, race.seeds, rows, tuple(told), race.seconds, race.is_cut)


def _row(lane: Lane, race: Race, sign: int) -> Row:
    candidate, arm = lane.contestant.candidate, lane.arms[0]
    history = {
        steps: tuple(sign * score for score in race.scores(lane, steps)) for steps in race.looks if steps <= lane.steps
    }
    if lane.behind is None:
        outcome = "diverged"
    elif lane.is_out or lane.behind.is_shown:
        outcome = "behind"
    else:
        outcome = "level" if lane.behind.value else "leads"
    return Row(
        candidate.name,
        candidate.same,
        _options_with(candidate.options, lane.contestant.rate, arm.rate),
        arm.rate,
        lane.steps,
        history[lane.steps],
        history,
        lane.behind,
        outcome,
    )


def _options_with(options: Mapping[str, Any], compiled: float | None, rate: float | None) -> dict[str, Any]:
    """The options, with what makes the learning rate the one that did best."""
    if rate is None or compiled is None or rate == compiled:
        return dict(options)
    scale = options.get("learning_rate_scale") or 1.0
    return {**options, "learning_rate_scale": float(scale * rate / compiled)}


def _rates_for(
    each: Contestant, rates: str | Sequence[float], batches: Batches
) -> tuple[list[float | None], list[str]]:
    """The learning rates that a candidate is trained at, and what to know about them."""
    compiled = each.rate
    if compiled is None:
        if not isinstance(rates, str):
            raise OptionError(
                f"Option rates is {rates!r}, but the optimizer of model {each.model.name!r} has a schedule or is "
                "several. Leave the option out: schedules are kept; or compile the model with a number."
            )
        note = "The learning rate is a schedule, which was kept as it is for all; rates were not searched for."
        return [None], [note] if rates == "find" else []
    if not isinstance(rates, str):
        return [*sorted(set(map(float, rates)))], []
    if rates == "compiled":
        return [compiled], []
    try:
        suggestion = find_learning_rate(each.model, batches.in_order_of(0)).suggestion
    except OptionError as error:
        return [compiled], [f"{each.candidate.name}: no learning rate was found, only that of the optimizer: {error}"]
    alike = max(suggestion / compiled, compiled / suggestion) < _ALIKE
    found: list[float | None] = [compiled] if alike else [compiled, suggestion]
    return found, []


def _monitored(each: Contestant, monitor: str | None) -> str:
    """What is compared, by its name in the logs."""
    if "loss" not in each.logs:
        raise OptionError(
            f"The test_step of model {each.model.name!r} returns {', '.join(each.logs) or 'nothing'}, and no 'loss', "
            "by which it shows whether training goes well. Let it return that as well."
        )
    known = {name: _keras.greater_is_better(each.model, name) for name in each.logs}
    if monitor is None:
        return next((name for name in each.logs if known[name] is not None and not name.endswith("loss")), "loss")
    name = monitor.removeprefix("val_") if isinstance(monitor, str) else monitor
    if known.get(name) is None:
        listed = ", ".join(repr(one) for one, is_known in known.items() if is_known is not None)
        raise OptionError(
            f"Option monitor is {monitor!r}, which is not evaluated, or of which Keras does not know whether more is "
            f"better. It can be one of {listed}."
        )
    return str(name)


def _greater_is_better(each: Contestant, monitor: str) -> bool:
    return bool(_keras.greater_is_better(each.model, monitor))


def _check_compiled(model: keras.Model) -> None:
    if not model.compiled or model.optimizer is None:
        raise OptionError(
            f"Model {model.name!r} was never compiled, so it cannot be trained. Call model.compile first; a compile of "
            "its own has to call super().compile(optimizer=...)."
        )


def _checked_seeds(seeds: Any) -> tuple[int, ...]:
    given = tuple(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    found = tuple(given) if isinstance(given, list | tuple | range) else ()
    if len(found) < 2 or len(set(found)) < len(found) or not all(isinstance(one, int) and one >= 0 for one in found):
        raise OptionError(
            f"Option seeds is {seeds!r}; it must be a number of at least 2, as one seed shows no difference, or as "
            "many different numbers that are not negative."
        )
    return found


def _check_rates(rates: Any) -> None:
    if rates in ("find", "compiled") if isinstance(rates, str) else _are_positive(rates):
        return
    raise OptionError(f"Option rates is {rates!r}; it must be 'find', 'compiled', or positive numbers: (0.01, 0.1).")


def _are_positive(rates: Any) -> bool:
    if not isinstance(rates, list | tuple) or not rates:
        return False
    return all(isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < math.inf for rate in rates)
