"""Carry the compiled state of a model over to its rewritten form."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.arrays import array_of
from kerasbn.compilation.memory import carry_memory, leaves, optimized_after
from kerasbn.compilation.optimizer import SAME, Tempo, successor_of
from kerasbn.compilation.schedules import decays
from kerasbn.compilation.weights import Placed, left_out_of_decay, rates_by_weight, weight_by_weight
from kerasbn.errors import OptionError, UnsupportedModelError, quoted
from kerasbn.options import OF_THE_OPTIMIZER, Options
from kerasbn.serializable import weight_by_weight_class


def check_compilation(model: keras.Model, options: Options) -> None:
    """Refuse options for an optimizer that the model does not have.

    Raises:
        OptionError: for a change to the optimizer of a model that was never compiled, or one that it cannot have.
    """
    for option in OF_THE_OPTIMIZER:
        value = options[option]
        if value not in (None, ()) and not model.compiled:
            raise OptionError(
                f"Option {option} is {value}, but model {model.name!r} was never compiled, so it has no optimizer. "
                "Call model.compile(...) first, or leave the option out."
            )
    for option in OF_THE_OPTIMIZER[-2:]:
        if options[option]:
            _check_weight_by_weight(model, option)
    if options["decay_exclude"] and not _keras.decays_weights(leaves(model.optimizer)[0]):
        raise OptionError(
            f"Option decay_exclude is {options['decay_exclude']}, but the optimizer {model.optimizer.name!r} has no "
            "weight decay. Compile the model with one that has, such as keras.optimizers.AdamW(weight_decay=1e-4), or "
            "leave the option out."
        )


def _check_weight_by_weight(model: keras.Model, option: str) -> None:
    optimizer, *others = leaves(model.optimizer)
    held = keras.tree.flatten(list(_keras.own_attributes(model).values()))
    if others or any(isinstance(each, keras.optimizers.Optimizer) for each in held):
        raise OptionError(
            f"Option {option} is given, but model {model.name!r} has several optimizers. Give each of them its own "
            "learning rate and weight decay, and leave the option out."
        )
    if weight_by_weight_class(type(optimizer)) is None:
        raise OptionError(
            f"Option {option} is given, but the optimizer {optimizer.name!r} is a {type(optimizer).__name__}, which is "
            "none of Keras's own, so what it does with a learning rate is not known. Compile the model with one of "
            "Keras's."
        )


def carry_compiled_state(
    source: keras.Model,
    model: keras.Model,
    successors: Mapping[int, keras.Variable],
    tempo: Tempo = SAME,
    placed: Collection[Placed] = (),
) -> None:
    """Compile a model as its source was compiled; the source's objects with state stay its own.

    Args:
        source: The model that it was made from.
        model: The model to compile.
        successors: Its variable for each one of the source's that lives on, by the old one's `id`.
        tempo: How its optimizer differs. Defaults to nothing.
        placed: Its layers. Defaults to none, of which nothing particular is asked.
    """
    if not source.compiled:
        return
    arguments = _keras.compile_arguments(source)
    undecayed = left_out_of_decay(placed, tempo.decay_exclude)
    by_weight = None
    if tempo.is_weight_by_weight or any(isinstance(each, _keras.WeightByWeight) for each in leaves(source.optimizer)):
        by_weight = weight_by_weight(
            leaves(source.optimizer)[0],
            source.variables,
            optimized_after(source.optimizer, model.variables, successors),
            successors,
            rates_by_weight(placed, tempo.rates),
            undecayed,
        )
    arguments["optimizer"] = successor_of(source.optimizer, tempo, by_weight=by_weight)
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(own_metric, arguments.get(name))
    _keras.compile_as_keras_does(model, source, **arguments)
    for name in _keras.EXECUTION_ATTRIBUTES:
        setattr(model, name, getattr(source, name))
    carry_memory(source.optimizer, model.optimizer, source.variables, model.variables, successors, undecayed)


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
    return bool(model.compiled and model.optimizer is not None and int(array_of(model.optimizer.iterations)) > 0)


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
        if _keras.decays_weights(leaf) and (fresh or options["decay_exclude"]):
            yield _note_on_decay(leaf, options["decay_exclude"], fresh)
        if options["decay_speedup"] is not None and not decays(_keras.learning_rate_of(leaf)):
            yield (
                f"The learning rate of {leaf.name!r} has no schedule, so decay_speedup leaves it as it is; "
                "a callback that lowers it is not part of the model."
            )


def _note_on_decay(optimizer: keras.optimizers.Optimizer, chosen: Collection[str], fresh: Collection[str]) -> str:
    left_out = [*(["the weights of the normalizations that are inserted"] if fresh else []), *map(repr, chosen)]
    if chosen or isinstance(optimizer, _keras.WeightByWeight):
        return f"The weight decay of {optimizer.name!r} leaves out {', '.join(left_out)}, in a saved file too."
    return (
        f"The weight decay of {optimizer.name!r} leaves out {', '.join(left_out)}. Keras keeps that in no file: to go "
        "on so with a model that was saved meanwhile, pass decay_exclude=('normalization',)."
    )


def own_metric(metric: Any) -> Any:
    """A metric that does not share its state with the source's."""
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return _keras.another_around_its_function(metric) or type(metric).from_config(metric.get_config())
    except Exception as error:
        raise UnsupportedModelError(
            f"Metric {metric.name!r} ({type(metric).__name__}) cannot be rebuilt from its configuration: "
            f"{quoted(error)}. Give the class a get_config that its __init__ understands, or compile the model without "
            "it."
        ) from error
