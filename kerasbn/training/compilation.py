"""Carry the compiled state of a model over to its rewritten form."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import OptionError, UnsupportedModelError, quoted
from kerasbn.graph.build import Built
from kerasbn.options import Options
from kerasbn.training.optimizer import Tempo, carry_progress, leaves, successor_of
from kerasbn.training.schedules import decays


def check_compilation(model: keras.Model, options: Options) -> None:
    """Refuse options for an optimizer that the model does not have.

    Raises:
        OptionError: for a change to the optimizer of a model that was never compiled.
    """
    for option in ("learning_rate_scale", "weight_decay_scale", "decay_speedup"):
        value = getattr(options, option)
        if value is not None and not model.compiled:
            raise OptionError(
                f"Option {option} is {value}, but model {model.name!r} was never compiled, so it has no optimizer. "
                "Call model.compile(...) first, or leave the option out."
            )


def carry_over_compilation(source: keras.Model, built: Built, options: Options) -> None:
    """Compile a built model as its source was compiled; the source's objects with state stay its own."""
    if not source.compiled:
        return
    arguments = _keras.compile_arguments(source)
    arguments["optimizer"] = successor_of(source.optimizer, Tempo.asked_for(options))
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(_own, arguments.get(name))
    built.model.compile(**arguments)
    carry_progress(source.optimizer, built.model.optimizer, built.model.trainable_variables, built.successors)


def notes_on_compilation(model: keras.Model, options: Options, fresh: Collection[str]) -> tuple[str, ...]:
    """What to know about the optimizer of the rewritten model.

    Args:
        model: The source model.
        options: The options of the rewrite.
        fresh: The names of the new layers that have weights to train.
    """
    return tuple(_notes(model, options, fresh)) if model.compiled else ()


def _notes(model: keras.Model, options: Options, fresh: Collection[str]) -> Iterator[str]:
    optimizer = model.optimizer
    if optimizer.built and fresh:
        yield (
            f"The optimizer {optimizer.name!r} keeps its progress on the weights that live on; "
            f"it starts afresh on those of {', '.join(fresh)}."
        )
    for leaf in leaves(optimizer):
        if options.decay_speedup is not None and not decays(_keras.learning_rate_of(leaf)):
            yield (
                f"The learning rate of {leaf.name!r} has no schedule, so decay_speedup leaves it as it is; "
                "a callback that lowers it is not part of the model."
            )


def _own(metric: Any) -> Any:
    """A metric that does not share its state with the source's."""
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return type(metric).from_config(metric.get_config())
    except Exception as error:
        raise UnsupportedModelError(
            f"Metric {metric.name!r} ({type(metric).__name__}) cannot be rebuilt from its configuration: "
            f"{quoted(error)}. Give the class a get_config that its __init__ understands, or compile the model without "
            "it."
        ) from error
