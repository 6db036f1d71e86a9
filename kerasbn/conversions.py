"""kerasbn's batch normalization into Keras's own and back.

At inference both compute the same from the same weights, and their weights have the same names, so
only the class changes:

    y = gamma (x - moving_mean) / sqrt(moving_variance + epsilon) + beta
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.graph.clone import constructor_arguments
from kerasbn.graph.edit import Replace, apply
from kerasbn.graph.model import Graph, LayerSpec
from kerasbn.serializable import BatchNormalization, BatchNormalizedRNN
from kerasbn.source.source import Source
from kerasbn.turns import in_turn

_OURS_ALONE = ("virtual_batch_size", "unbiased_variance", "zero_debias", "accumulate", "frozen_statistics")


def to_keras(model: keras.Model, *, copy: bool = True) -> keras.Model:
    """Put `keras.layers.BatchNormalization` in the place of kerasbn's, so that files load without kerasbn.

    At inference the result computes exactly what the model does. In training Keras's layer has no
    `virtual_batch_size`, `unbiased_variance`, `zero_debias` and `accumulate`: they are left out, and
    `momentum=None` becomes Keras's default. `renorm` stays, and on TensorFlow `synchronized`.

    Example:

    ```python
    kerasbn.layers.to_keras(model).save("model.keras")
    ```

    Args:
        model: A Keras model: Sequential, Functional, or subclassed and called before. It stays as
            it is.
        copy: Whether the result owns copies of all weights. `False` reuses the layers that need no
            change. Defaults to `True`.

    Returns:
        A new model, compiled as the source is.

    Raises:
        UnsupportedModelError: if the model cannot be rebuilt faithfully, or one of the layers has frozen statistics or
            is inside another layer, such as `TimeDistributed`; and if there is a `BatchNormalizedRNN`, which Keras
            has none of: `kerasbn.fold` makes it the layer that it wraps first.
    """
    return _converted(model, BatchNormalization, _theirs, copy, everywhere=True)


def from_keras(model: keras.Model, *, copy: bool = True) -> keras.Model:
    """Put `kerasbn.layers.BatchNormalization` in the place of Keras's, with its arguments and weights.

    The result computes what the model does, at inference exactly and in training up to rounding,
    but faster. Layers inside other layers, such as `TimeDistributed` and `BatchNormalizedRNN`, stay as they are.

    Example:

    ```python
    faster = kerasbn.layers.from_keras(model)
    ```

    Args:
        model: A Keras model: Sequential, Functional, or subclassed and called before. It stays as
            it is.
        copy: Whether the result owns copies of all weights. `False` reuses the layers that need no
            change. Defaults to `True`.

    Returns:
        A new model, compiled as the source is.

    Raises:
        UnsupportedModelError: if the model cannot be rebuilt faithfully.
    """
    return _converted(model, keras.layers.BatchNormalization, _ours, copy)


def _theirs(layer: BatchNormalization) -> LayerSpec:
    if layer.frozen_statistics:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} has frozen statistics, which Keras's batch normalization cannot have while gamma "
            "and beta are trained. Thaw it first, or freeze all of it: kerasbn.freeze(model, what='all')."
        )
    config = {key: value for key, value in constructor_arguments(layer).items() if key not in _OURS_ALONE}
    if config["momentum"] is None:
        del config["momentum"]
    config["synchronized"] = bool(layer.synchronized) and keras.backend.backend() == "tensorflow"
    return LayerSpec(keras.layers.BatchNormalization, config, origin=layer)


def _ours(layer: keras.layers.BatchNormalization) -> LayerSpec:
    return LayerSpec(BatchNormalization, constructor_arguments(layer), origin=layer)


@in_turn()
def _converted(
    model: keras.Model,
    kind: type[keras.layers.Layer],
    successor: Callable[[Any], LayerSpec],
    copy: bool,
    *,
    everywhere: bool = False,
) -> keras.Model:
    """A model with a successor for each layer of just this kind; `everywhere` refuses to leave one inside another."""
    source = Source.of(model, copy=copy)
    if everywhere:
        _refuse_inside_others(source.graph, kind)
    layers = [layer for _, layer in source.graph.layers() if type(layer) is kind]
    with _keras.scope_of(model):
        return source.build(apply(source.graph, [Replace(layer, successor(layer)) for layer in layers])).model


def _refuse_inside_others(graph: Graph, kind: type[keras.layers.Layer]) -> None:
    for path, outer in graph.layers():
        for inner in _keras.sublayers(outer):
            if type(inner) is BatchNormalizedRNN:
                raise UnsupportedModelError(
                    f"Layer {path!r} ({type(outer).__name__}) {'is' if inner is outer else 'holds'} a recurrent layer "
                    "that is normalized, for which Keras has no class. Once training is done, have it made the layer "
                    "that it wraps: to_keras(kerasbn.fold(model))."
                )
            if type(inner) is kind and inner is not outer:
                raise UnsupportedModelError(
                    f"Layer {path!r} ({type(outer).__name__}) holds {inner.name!r}, a {kind.__name__} of kerasbn's, "
                    f"inside, where it cannot be replaced. Build {path!r} with a keras.layers.{kind.__name__} and "
                    "copy its weights."
                )
