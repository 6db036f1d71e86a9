"""Plans: what is going to happen to a model, and the doing of it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras

from kerasbn.catalog.roles import NORMALIZING, role_of
from kerasbn.graph.build import build
from kerasbn.graph.edit import apply
from kerasbn.graph.model import Graph, LayerSpec
from kerasbn.graph.read import read
from kerasbn.graph.trace import Traced, is_traceable, trace
from kerasbn.options import Options, options_from
from kerasbn.passes.fold_normalization import INFERENCE_MODEL, fold_normalization
from kerasbn.passes.insert_normalization import insert_normalization
from kerasbn.passes.naming import Names
from kerasbn.passes.normalize_inputs import normalize_inputs
from kerasbn.passes.placement import place
from kerasbn.passes.proposal import Edit, Proposals, Skip
from kerasbn.passes.scale_regularizers import scale_regularizers
from kerasbn.passes.split_activation import split_activation
from kerasbn.passes.strip_dropout import strip_dropout
from kerasbn.passes.strip_local_response import strip_local_response
from kerasbn.plan_table import table_of
from kerasbn.training.compilation import carry_over_compilation, check_compilation, notes_on_compilation
from kerasbn.training.statistics import start_from_measured

_PAST = {"insert": "inserted", "remove": "removed", "replace": "replaced", "fold": "folded"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a rewrite does to a model, before it is done. Made by `kerasbn.plan`.

    Attributes:
        model: The source model. A plan never changes it.
        options: The options that the plan was made with.
        edits: What changes, in the order of the model.
        skips: What stays as it is, each with its reason, likewise.
        notes: What else to know.
    """

    model: keras.Model
    options: Options
    edits: tuple[Edit, ...]
    skips: tuple[Skip, ...]
    notes: tuple[str, ...]
    _graph: Graph = dataclasses.field(repr=False)
    _order: Mapping[str, int] = dataclasses.field(repr=False)
    _traced: Traced | None = dataclasses.field(repr=False)

    def apply(self) -> keras.Model:
        """Make the rewritten model.

        Returns:
            A new model; the source stays as it is. Each call makes another one.

        Raises:
            UnsupportedModelError: if a layer cannot be carried over faithfully.
        """
        built = build(self._graph, copy=self.options.copy)
        if self.options.data is not None:
            norms = {built.made[spec] for spec in _inserted(self._graph)}
            start_from_measured(built.model, norms, self.options.data, preserve=self.options.preserve)
        if self._traced is not None:
            built = built.seen_from(self._traced.sources)
        carry_over_compilation(self.model, built, self.options)
        return built.model

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data, ready for JSON."""
        options = dataclasses.asdict(dataclasses.replace(self.options, norm=None, data=None))
        for name in ("norm", "data"):
            value = getattr(self.options, name)
            options[name] = None if value is None else type(value).__name__
        return {
            "model": self.model.name,
            "options": options,
            "edits": [{"site": edit.site, "kind": edit.kind, "detail": edit.detail} for edit in self.edits],
            "skips": [{"site": skip.site, "reason": skip.reason.value, "detail": skip.detail} for skip in self.skips],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        rows: list[tuple[str, str, str]] = [(edit.site, edit.kind, edit.detail) for edit in self.edits]
        rows += [(skip.site, f"skip: {skip.reason.value}", skip.detail) for skip in self.skips]
        rows.sort(key=lambda row: self._order[row[0]])
        parts = [
            self.title,
            table_of(("call site", "what", "detail"), rows),
            "\n".join(textwrap.fill(note, 120) for note in self.notes),
        ]
        return "\n\n".join(part for part in parts if part)

    @property
    def title(self) -> str:
        """The plan in one line."""
        kinds = Counter(edit.kind for edit in self.edits)
        counts = ", ".join(f"{count} {_PAST[kind]}" for kind, count in kinds.items()) or "no edits"
        return f"Plan for {self.model.name!r}: {counts}, {len(self.skips)} skipped"


def plan(model: keras.Model, **options: Any) -> Plan:
    """Plan the rewriting of a model, without doing it.

    Args:
        model: A Keras model: Sequential, Functional, or subclassed and called before; the latter is
            traced, and its weights are taken as they are now. It is never changed.
        **options: The options of `kerasbn.rewrite`.

    Returns:
        A `Plan`: print it, look through its `edits` and `skips`, and `apply()` it.

    Raises:
        OptionError: if an option is not valid or does not fit the model.
        UnsupportedModelError: if the model is of a kind that cannot be rewritten.
    """
    checked = options_from(**options)
    traced = trace(model, copy=checked.copy) if is_traceable(model) else None
    graph = read(model if traced is None else traced.model)
    check_compilation(model, checked)
    inputs = [value.spec.name for value in keras.tree.flatten(graph.inputs)]
    order = {address: index for index, address in enumerate([*inputs, *graph.by_address])}
    edits: list[Edit] = []
    skips: list[Skip] = []
    for propose in _folding(checked) if checked.fold else _inserting(graph, checked):
        proposals = propose(graph)
        graph = apply(graph, (change for edit in proposals.edits for change in edit.changes))
        edits += proposals.edits
        skips += proposals.skips
    return Plan(
        model=model,
        options=checked,
        edits=tuple(sorted(edits, key=lambda edit: order[edit.site])),
        skips=tuple(sorted(skips, key=lambda skip: order[skip.site])),
        notes=(
            *((INFERENCE_MODEL,) if checked.fold else ()),
            *notes_on_compilation(model, checked, [spec.name for spec in _inserted(graph)]),
        ),
        _graph=graph,
        _order=order,
        _traced=traced,
    )


_Pass: TypeAlias = Callable[[Graph], Proposals]


def _inserting(graph: Graph, options: Options) -> tuple[_Pass, ...]:
    names = Names(graph)
    placements = place(graph, options)
    return (
        lambda graph: Proposals(skips=placements.skips),
        lambda graph: normalize_inputs(graph, names, options),
        lambda graph: split_activation(graph, placements, names),
        lambda graph: insert_normalization(graph, placements, names, options),
        lambda graph: strip_local_response(graph, options),
        lambda graph: strip_dropout(graph, options),
        lambda graph: scale_regularizers(graph, options),
    )


def _folding(options: Options) -> tuple[_Pass, ...]:
    passes: tuple[_Pass, ...] = (
        lambda graph: strip_local_response(graph, options),
        lambda graph: strip_dropout(graph, options),
        fold_normalization,
        lambda graph: scale_regularizers(graph, options),
    )
    return passes if options.dropout != "none" else (passes[0], *passes[2:])


def _inserted(graph: Graph) -> list[LayerSpec]:
    """The normalizations that are new."""
    specs = (operation for operation in graph.calls if isinstance(operation, LayerSpec))
    return [spec for spec in specs if spec.origin is None and role_of(spec) in NORMALIZING]


def rewrite(model: keras.Model, **options: Any) -> keras.Model:
    """Give a Keras model batch normalization.

    The source model stays as it is. The result keeps its class, name, inputs, outputs, weights and
    compiled state; new layers are named after the layer that they serve (`conv2_bn`).

    Example:

    ```python
    model = kerasbn.rewrite(model, position="auto", learning_rate_scale=2.0)
    model.fit(x, y)
    ```

    Args:
        model: A Keras model: Sequential, Functional, or subclassed and called before.
        position: Where batch normalization goes relative to the activation. `"before"`: right
            after each linear layer whose output goes on to further layers. `"after"`: right after
            each activation that follows a linear layer. `"auto"`: after s-shaped activations,
            before the others. `"none"`: nowhere. Defaults to `"auto"`.
        rules: Pairs of a glob over layer paths and a position or `"skip"`, such as
            `[("stage1/*", "after")]`. The first match wins over `position`, and over what would be
            left alone. Defaults to `()`.
        norm: A layer instance whose configuration every inserted layer gets.
            `keras.layers.BatchNormalization()` makes models that load without kerasbn. Defaults to
            `None`: `kerasbn.layers.BatchNormalization(momentum=0.95, zero_debias=True)`, whose moving
            statistics are right from the first batch on and soon follow.
        dropout: Which Dropout goes. `"redundant"`: what feeds a batch normalization further down.
            `"all"`, `"none"`. Defaults to `"redundant"`.
        normalize_inputs: Whether each input of numbers is normalized as well, in the place of
            standardising the data. A rule `("name", "skip")` leaves the input of that name alone.
            Defaults to `False`.
        local_response_normalization: `"keep"`, or `"remove"` the layers that do it: `Lambda`s of
            TensorFlow's function, layers named after it. Defaults to `"keep"`.
        learning_rate_scale: Positive float, what the compiled optimizer's learning rate is
            multiplied by; its schedule too. Defaults to `None`: it is left alone, as a rate that is
            the best one without batch normalization mostly is with it as well, whatever the
            optimizer (docs/reproduce/optimizers.md).
        weight_decay_scale: Positive float, what the compiled optimizer's weight decay and the
            strength of the layers' L1 and L2 regularizers are multiplied by. Defaults to `None`.
        decay_speedup: Positive float, how many times as fast the compiled optimizer's schedule
            lets the learning rate decay; a warmup keeps its length. Defaults to `None`.
        data: A sample of inputs: arrays in the structure of the model's inputs, or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches, with targets or
            without. Inserted layers start from the statistics measured on it, in one pass when the
            plan is applied, so that training goes on close to where the source stands. Defaults to
            `None`.
        preserve: Whether inserted batch normalization starts as the identity at inference, so that
            the result computes what the source does. Defaults to `True`.
        shared: `"per_call"`, a layer that is called k times gets k normalizations, or `"shared"`,
            it gets one. Defaults to `"per_call"`.
        fold: Whether batch normalization is folded away instead of inserted, as `kerasbn.fold`
            does. Defaults to `False`.
        copy: Whether the result owns copies of all layers and weights. `False` reuses the layers
            that need no change, weights and all: training one model trains the other, and Keras
            records the new calls on the source's layers for as long as these live. Defaults to
            `True`.

    Returns:
        The rewritten model.

    Raises:
        OptionError: if an option is not valid or does not fit the model.
        UnsupportedModelError: if the model cannot be rewritten faithfully. The message says which
            layer stops it and what to do.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), section 3.2 on the position.
    """
    return plan(model, **options).apply()


def fold(model: keras.Model) -> keras.Model:
    """Fold batch normalization into the layers next to it, wherever that is exact.

    The result computes at inference what the source does, with fewer layers: each batch
    normalization that goes is multiplied into the weights of the linear layers before or behind it,
    in float64. It is a model for inference, not for further training. What stays, stays for a
    reason: `kerasbn.plan(model, position="none", dropout="none", fold=True)` lists them.

    The source model stays as it is. The result keeps its class, name, inputs, outputs, the names of
    all other layers, what is frozen, and the compiled state. Models inside it may compute something
    else by themselves, where one takes in a normalization outside of it.

    Example:

    ```python
    serving = kerasbn.fold(model)
    ```

    Args:
        model: A Keras model: Sequential, Functional, or subclassed and called before.

    Returns:
        The folded model.

    Raises:
        UnsupportedModelError: if the model cannot be rebuilt faithfully.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), Algorithm 2: batch normalization
      at inference is an affine map.
    """
    return plan(model, position="none", dropout="none", fold=True).apply()
