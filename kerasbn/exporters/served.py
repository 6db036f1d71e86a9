"""What is written of a model: it as a graph, with its batch normalization folded."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras

from kerasbn import _keras
from kerasbn.errors import UnsupportedModelError
from kerasbn.exporters.settings import Settings
from kerasbn.options import Options
from kerasbn.planner import Plan, applied, normalizations_left, plan
from kerasbn.reasons import Reason
from kerasbn.source.source import Source
from kerasbn.source.trace import as_one_layer, is_traceable, trace


@dataclasses.dataclass(frozen=True)
class Served:
    """What is written of a model.

    Attributes:
        model: The model to write.
        whole: The same before anything was folded, to be compared with.
        folded: How many calls of batch normalization were folded.
        kept: How many were not, by the value of their `Reason`.
        folding: The plan that they were folded by, `None` where nothing is folded.
    """

    model: keras.Model
    whole: keras.Model
    folded: int = 0
    kept: dict[str, int] = dataclasses.field(default_factory=dict)
    folding: Plan | None = None


@contextlib.contextmanager
def served(model: keras.Model, settings: Settings) -> Iterator[Served]:
    """What is written of a model, made for as long as the context lasts.

    The layers that need no change are the model's own, so layers that cannot be rebuilt from their
    configuration do not stand in the way. They forget the calls that this made. A model that several processes hold
    together is copied to this one, which needs none of the others then.

    Raises:
        UnsupportedModelError: if the model is subclassed and cannot be traced, or cannot be copied where it has to be.
    """
    if _keras.is_shared(model):
        with _keras.undistributed(), served(_copied(model), settings) as what:
            yield what
        return
    with _keras.forgotten_calls(_keras.sublayers(model)):
        whole = _as_graph(model, settings.inputs) if is_traceable(model) else model
        yield _folded(whole, settings) if settings.fold else Served(whole, whole)


def _copied(model: keras.Model) -> keras.Model:
    source = Source.of(model, copy=True)
    return source.build(source.graph).model


def _as_graph(model: keras.Model, example: Any) -> keras.Model:
    """A subclassed model as what its call does, or where that cannot be traced, as a layer that is called once."""
    try:
        return trace(model, copy=False, example=example, at_inference=True).model
    except UnsupportedModelError:
        try:
            return as_one_layer(model, example)
        except Exception:  # whatever the user's own code raises
            pass
        raise


def _folded(model: keras.Model, settings: Settings) -> Served:
    norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in _keras.sublayers(model))
    if not norms and not settings.merge_branches:
        return Served(model, model)
    options: Options = {"position": "none", "dropout": "none", "fold": True, "copy": False}
    options |= {"merge_branches": settings.merge_branches, "custom_layers": settings.custom_layers}
    try:
        folding = plan(model, **options)
        folded = sum(edit.kind == "fold" for edit in folding.edits)
        kept = Counter(skip.reason.value for skip in normalizations_left(folding))
        return Served(applied(folding) if folding.edits else model, model, folded, dict(kept), folding)
    except UnsupportedModelError:
        return Served(model, model, kept={Reason.OPAQUE.value: norms} if norms else {})
