"""Carry the compiled state of a model over to its rewritten form."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.compilation.memory import carry_memory, leaves
from kerasbn.compilation.optimizer import SAME, Tempo, successor_of
from kerasbn.compilation.schedules import decays
from kerasbn.errors import OptionError, UnsupportedModelError, quoted
from kerasbn.options import OF_THE_OPTIMIZER, Options


def check_compilation(model: keras.Model, options: Options) -> None:
    """Refuse options for an optimizer that the model does not have.

    Raises:
        OptionError: for a change to the optimizer of a model that was never compiled.
    """
    for option in OF_THE_OPTIMIZER:
        value = options[option]
        if value is not None and not model.compiled:
            raise OptionError(
                f"Option {option} is {value}, but model {model.name!r} was never compiled, so it has no optimizer. "
                "Call model.compile(...) first, or leave the option out."
            )


def carry_compiled_state(
    source: keras.Model, model: keras.Model, successors: Mapping[int, keras.Variable], tempo: Tempo = SAME
) -> None:
    """Compile a model as its source was compiled; the source's objects with state stay its own.

    Args:
        source: The model that it was made from.
        model: The model to compile.
        successors: Its variable for each one of the source's that lives on, by the old one's `id`.
        tempo: How its optimizer differs. Defaults to nothing.
    """
    if not source.compiled:
        return
    arguments = _keras.compile_arguments(source)
    arguments["optimizer"] = successor_of(source.optimizer, tempo)
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(own_metric, arguments.get(name))
    _keras.compile_as_keras_does(model, **arguments)
    for name in _keras.EXECUTION_ATTRIBUTES:
        setattr(model, name, getattr(source, name))
    carry_memory(source.optimizer, model.optimizer, source.variables, model.variables, successors)


def notes_on_compilation(model: keras.Model, options: Options, fresh: Collection[str]) -> tuple[str, ...]:
    """What to know about the optimizer of the rewritten model.

    Args:
        model: The source model.
        options: The options of the rewrite.
        fresh: The names of the new layers that have weights to train.
    """
    return tuple(_notes(model, options, fresh)) if model.compiled else ()


def batches_of_a_step(model: keras.Model) -> int:
    """Over how many batches the optimizer that a model was compiled with accumulates gradients."""
    if not model.compiled or model.optimizer is None:
        return 1
    return max(leaf.gradient_accumulation_steps or 1 for leaf in leaves(model.optimizer))


def was_trained(model: keras.Model) -> bool:
    """Whether the optimizer that a model was compiled with has made steps."""
    return bool(model.compiled and model.optimizer is not None and int(model.optimizer.iterations) > 0)


def _notes(model: keras.Model, options: Options, fresh: Collection[str]) -> Iterator[str]:
    optimizer = model.optimizer
    if optimizer.built and fresh:
        yield (
            f"The optimizer {optimizer.name!r} keeps its progress on the weights that live on; "
            f"it starts afresh on those of {', '.join(fresh)}."
        )
    if fresh and options["norm"] is None and (count := batches_of_a_step(model)) > 1:
        yield (
            f"Gradients are accumulated over {count} batches, so the moving statistics of what is inserted take as "
            "many at once; in training each batch is normalized by itself."
        )
    for leaf in leaves(optimizer):
        if options["decay_speedup"] is not None and not decays(_keras.learning_rate_of(leaf)):
            yield (
                f"The learning rate of {leaf.name!r} has no schedule, so decay_speedup leaves it as it is; "
                "a callback that lowers it is not part of the model."
            )


def own_metric(metric: Any) -> Any:
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
