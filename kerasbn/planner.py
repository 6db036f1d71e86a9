"""Plans: what is going to happen to a model, and the verbs that make them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Unpack

import keras
from rich.text import Text

from kerasbn import _keras
from kerasbn.catalog.norms import norms_in
from kerasbn.catalog.roles import NORMALIZING, Role, role_of
from kerasbn.compilation.compiled import batches_of_a_step, check_compilation, notes_on_compilation, was_trained
from kerasbn.compilation.optimizer import Tempo
from kerasbn.errors import OptionError, UnsupportedModelError
from kerasbn.facts.facts import Facts
from kerasbn.graph.build import Built
from kerasbn.graph.edit import Insert, Replace, Substitute, apply
from kerasbn.graph.model import LayerSpec, core_of
from kerasbn.options import CustomLayers, Options, changes_existing, checked
from kerasbn.pages.content import Change, Page, Part
from kerasbn.passes.add_l2 import note_on_l2
from kerasbn.passes.fold_normalization import INFERENCE_MODEL
from kerasbn.passes.outcome import outcome_of_folding, outcome_of_inserting
from kerasbn.passes.picture import picture_of
from kerasbn.passes.pipeline import notes_on_rules, propose
from kerasbn.passes.proposal import Edit
from kerasbn.plan_table import Row, lines_of, paragraph, table_of
from kerasbn.provenance import REPORT_VERSION, versions
from kerasbn.reasons import Skip
from kerasbn.shown import InATerminal
from kerasbn.source.source import Source
from kerasbn.source.trace import is_traceable
from kerasbn.statistics.data import first_batch
from kerasbn.statistics.fitting import Moved, fit
from kerasbn.statistics.measured import start_from_measured
from kerasbn.turns import in_turn

TRAINED = (
    "The model is trained. What is inserted starts as the identity at inference, but the first steps of training "
    "normalize by the batch; given a sample of the inputs as data=, they start close to where the model stands."
)
REMOVED = (
    "What is removed is not folded: outputs change, and the model is to be trained anew. For inference kerasbn.fold "
    "takes batch normalization out, and outputs stay as they are."
)
REPLACED = (
    "What replaces normalization computes something else, so outputs change. Given a sample of the inputs as data=, "
    "its weights are fitted to what was computed before, and the plan says how near that comes."
)
GIVEN_ONCE = (
    "What replaces normalization is fitted on data when the plan is applied. As that gives its batches once, how near "
    "it comes is not told: give arrays or a dataset."
)
COLUMNS = ("call site", "what", "detail")
"""What a plan tells of each call site."""

_PAST = {"insert": "inserted", "remove": "removed", "replace": "replaced", "fold": "folded", "merge": "merged"}


@dataclasses.dataclass(frozen=True)
class Plan(InATerminal):
    """What a rewrite does to a model, before it is done. Made by `kerasbn.plan`.

    Example:

    ```python
    plan = kerasbn.plan(model)
    heads = [skip.site for skip in plan.skips if skip.reason is kerasbn.Reason.OUTPUT]
    ```

    Attributes:
        model: The source model. A plan never changes it.
        options: The options that the plan was made with, by name.
        edits: What changes, in the order of the model.
        skips: What stays as it is, each with its reason, likewise.
        outcome: How many linear layers there are, or when folding batch normalizations, and what
            becomes of them, in one line.
    """

    model: keras.Model
    options: Options = dataclasses.field(repr=False, compare=False)
    edits: tuple[Edit, ...]
    skips: tuple[Skip, ...]
    outcome: str
    _notes: tuple[str, ...] = dataclasses.field(repr=False)
    _source: Source = dataclasses.field(repr=False)

    @property
    def exact(self) -> bool:
        """Whether the result computes at inference what the source does, given `preserve`."""
        return all(edit.exact for edit in self.edits)

    @cached_property
    def moved(self) -> Moved | None:
        """How far what replaces normalization, fitted on `data`, moves the outputs on it.

        A model is made to tell that, when it is first asked for. `None` where nothing is fitted, or the data gives its
        batches once.
        """
        if isinstance(self.options["data"], Iterator) or not self._fitted:
            return None
        built, layers = _built(self)
        return fit(self._source.graph, built.model, layers, self.options["data"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What else to know."""
        return (*self._notes, *(() if self.moved is None else (str(self.moved),)))

    @property
    def _fitted(self) -> Mapping[str, LayerSpec]:
        """The normalizations that are fitted to those which they replace, by the address of the call."""
        if self.options["data"] is None or self.options["fold"]:
            return {}
        changes = (change for edit in self.edits for change in edit.changes)
        found = {each.address: each.layer for each in changes if isinstance(each, Substitute)}
        return {address: layer for address, layer in found.items() if isinstance(layer, LayerSpec)}

    def apply(self) -> keras.Model:
        """Make the rewritten model, with the weights as they are now.

        Returns:
            A new model; the source stays as it is. Each call makes another one.

        Raises:
            UnsupportedModelError: if a layer cannot be carried over faithfully, or the model has changed
                meanwhile so that another plan would be made for it.
        """
        now = plan(self.model, **self.options)
        if now._decisions != self._decisions:
            raise UnsupportedModelError(
                f"Model {self.model.name!r} has changed since it was planned, so that the plan no longer fits: "
                f"{self._first_difference(now)}. Plan it again: kerasbn.plan(model, ...)."
            )
        with _keras.scope_of(self.model):
            return applied(now)

    @property
    def _decisions(self) -> list[tuple[str, str]]:
        """What happens at each call site. Operations go by names that Keras numbers anew each time it traces them."""
        decisions: list[tuple[str, str]] = [(edit.site, edit.kind) for edit in self.edits]
        decisions += [(skip.site, skip.reason.value) for skip in self.skips]
        return sorted((re.sub(r"_\d+", "", site), what) for site, what in decisions)

    def _first_difference(self, now: Plan) -> str:
        ours, theirs = (Counter(each._decisions) for each in (self, now))
        site, what = next(iter((ours - theirs) + (theirs - ours)))
        return f"{site} ({what})"

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data, ready for JSON: `plan` in docs/schemas/report-1.json."""
        options = {
            **self.options,
            "rules": [list(rule) for rule in self.options["rules"]],
            "rates": [list(rate) for rate in self.options["rates"]],
            "decay_exclude": list(self.options["decay_exclude"]),
        }
        for name in ("norm", "data", "inputs"):
            options[name] = None if options[name] is None else type(options[name]).__name__
        return {
            "version": REPORT_VERSION,
            "model": self.model.name,
            "options": options,
            "outcome": self.outcome,
            "counts": dict(Counter(edit.kind for edit in self.edits)),
            "left_alone": dict(Counter(skip.reason.value for skip in self.skips)),
            "edits": [{"site": edit.site, "kind": edit.kind, "detail": edit.detail} for edit in self.edits],
            "skips": [{"site": skip.site, "reason": skip.reason.value, "detail": skip.detail} for skip in self.skips],
            "notes": list(self.notes),
        }

    @property
    def _page(self) -> Page:
        return Page(self.title, (Part(self.model.name, (), (self.picture("What changes, and why"),)),), versions())

    def picture(self, heading: str) -> Change:
        """What changes, as plain data to show under a heading."""
        return picture_of(heading, self._source.graph, self.edits, self.skips, self.outcome, self.notes)

    def _text(self, width: int) -> Text:
        order = _order(self._source)
        decisions: list[Edit | Skip] = [*self.edits, *self.skips]
        rows = sorted(map(row_of, decisions), key=lambda row: order[row[0]])
        parts = (
            lines_of([paragraph(self.title, width, "bold"), paragraph(self.outcome, width)]),
            table_of(COLUMNS, rows, width),
            lines_of([paragraph(note, width) for note in self.notes]),
        )
        return lines_of([part for part in parts if part], space=1)

    @property
    def title(self) -> str:
        """The plan in one line."""
        kinds = Counter(edit.kind for edit in self.edits)
        counts = ", ".join(f"{count} {_PAST[kind]}" for kind, count in kinds.items()) or "no edits"
        return f"Plan for {self.model.name!r}: {counts}, {len(self.skips)} skipped"


def row_of(decision: Edit | Skip) -> Row:
    """What becomes of a call site as a row of a table with `COLUMNS`."""
    what = decision.kind if isinstance(decision, Edit) else f"skip: {decision.reason.value}"
    return decision.site, what, decision.detail


def applied(plan: Plan) -> keras.Model:
    """The model that a plan gives which was made a moment ago; `Plan.apply` sees to it that an older one still fits."""
    built, fitted = _built(plan)
    data = plan.options["data"]
    layers = [built.layer_of(spec) for spec in _inserted(plan.edits)]
    once = [*data] if fitted and isinstance(data, Iterator) else None  # it is gone through twice
    if fitted:
        fit(plan._source.graph, built.model, fitted, data if once is None else iter(once))
    if data is not None and (layers or not fitted):
        again = data if once is None else iter(once)
        start_from_measured(built.model, layers, again, preserve=plan.options["preserve"])
    return built.model


def _built(plan: Plan) -> tuple[Built, Mapping[str, keras.layers.Layer]]:
    """What is built by a plan, and the layers in it that are to be fitted, by the address of the call."""
    with in_turn():
        graph = apply(plan._source.graph, (change for edit in plan.edits for change in edit.changes))
        built = plan._source.build(graph, Tempo.asked_for(plan.options))
    layers = {address: built.layer_of(spec) for address, spec in plan._fitted.items()}
    return built, layers


def normalizations_left(plan: Plan) -> tuple[Skip, ...]:
    """The calls of batch normalization, or of what holds some, that a plan of folding leaves."""
    sites = plan._source.graph.by_address
    return tuple(skip for skip in plan.skips if norms_in(core_of(sites[skip.site].operation)))


@in_turn()
def plan(model: keras.Model, **options: Unpack[Options]) -> Plan:
    """Plan the rewriting of a model, without doing it.

    Example:

    ```python
    plan = kerasbn.plan(model, position="before")
    print(plan)  # what would change, and why the rest would not
    model = plan.apply()
    ```

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
    asked = checked(options)
    source = Source.of(model, copy=asked["copy"], holds=_opened_for(asked), example=_example(model, asked))
    check_compilation(model, asked)
    _check_parts(source, asked)
    facts = Facts(source.graph, source.kept, batches_of_a_step(model))
    draft = propose(facts, asked)
    outcome_of = outcome_of_folding if asked["fold"] else outcome_of_inserting
    order = _order(source)
    inserted = [*_inserted(draft.edits)]
    return Plan(
        model=model,
        options=asked,
        edits=tuple(sorted(draft.edits, key=lambda edit: order[edit.site])),
        skips=tuple(sorted(draft.skips, key=lambda skip: order[skip.site])),
        outcome=outcome_of(facts, draft.edits, draft.skips),
        _notes=(
            *((INFERENCE_MODEL,) if asked["fold"] else ()),
            *source.notes,
            *note_on_l2(asked, draft),
            *notes_on_compilation(model, asked, [_named(spec) for spec in (*inserted, *_replacing(draft.edits))]),
            *((TRAINED,) if inserted and _starts_unmeasured(source, asked) else ()),
            *_notes_on_existing(draft.edits, asked),
            *notes_on_rules(facts, asked, draft),
        ),
        _source=source,
    )


def _opened_for(options: Options) -> Callable[[keras.layers.Layer], bool]:
    """The layers for the sake of which custom layers around them are opened."""
    if options["custom_layers"] == "keep":
        return lambda layer: False
    if options["fold"]:
        return lambda layer: role_of(layer) is Role.BATCH_NORMALIZATION
    roles = {Role.LINEAR} | (NORMALIZING if changes_existing(options) else set())
    return lambda layer: role_of(layer) in roles


def _example(model: keras.Model, options: Options) -> Any:
    """A batch of inputs of a subclassed model, if there is one among the options."""
    if options["inputs"] is None and options["data"] is not None and is_traceable(model):
        return first_batch(options["data"])
    return options["inputs"]


def _check_parts(source: Source, options: Options) -> None:
    """Refuse options that do not fit the parts of a model."""
    if source.is_assembly and (options["data"] is not None or options["normalize_inputs"]):
        raise OptionError(
            f"Model {source.model.name!r} trains in its own way, so what its parts get is not known: leave data and "
            "normalize_inputs out, or rewrite its parts one by one before they are put into it."
        )
    for part in options["parts"] or ():
        if part not in source.parts:
            listed = f"Its parts are {', '.join(source.parts)}" if source.parts else "It has none: leave the option out"
            raise OptionError(
                f"Option parts names {part!r}, which model {source.model.name!r} does not have. {listed}."
            )


def _starts_unmeasured(source: Source, options: Options) -> bool:
    """Whether a trained model gets normalizations that could start from measured statistics, and do not."""
    return options["data"] is None and not source.is_assembly and was_trained(source.model)


def _order(source: Source) -> Mapping[str, int]:
    """The place of each call site in the model, by its address."""
    return {address: index for index, address in enumerate(source.graph.by_address)}


def _inserted(edits: Iterable[Edit]) -> Iterable[LayerSpec]:
    """The normalizations that are new, and the recurrent layers that have a new one inside, each once."""
    changes = [change for edit in edits if edit.kind == "insert" for change in edit.changes]
    layers = [change.layer for change in changes if isinstance(change, Insert | Replace)]
    return dict.fromkeys(layer for layer in layers if role_of(layer) in NORMALIZING | {Role.RECURRENT})


def _replacing(edits: Iterable[Edit]) -> Iterable[LayerSpec]:
    """The normalizations that take the place of others which compute something else, each once."""
    changes = (change for edit in edits if edit.kind == "replace" for change in edit.changes)
    layers = (change.layer for change in changes if isinstance(change, Substitute))
    return dict.fromkeys(layer for layer in layers if isinstance(layer, LayerSpec))


def _notes_on_existing(edits: Iterable[Edit], options: Options) -> Iterator[str]:
    """What to know where normalization that was there becomes something else."""
    kinds = {edit.kind for edit in edits if not edit.exact}
    if "remove" in kinds:
        yield REMOVED
    if "replace" in kinds and options["data"] is None:
        yield REPLACED
    elif "replace" in kinds and isinstance(options["data"], Iterator):
        yield GIVEN_ONCE


def _named(spec: LayerSpec) -> str:
    """What has new weights, for people to read."""
    return f"what normalizes in {spec.name}" if role_of(spec) is Role.RECURRENT else spec.name


def rewrite(model: keras.Model, **options: Unpack[Options]) -> keras.Model:
    """Give a Keras model batch normalization.

    The source model stays as it is. The result keeps its name, inputs, outputs, weights and compiled
    state; new layers are named after the layer that they serve (`conv2_bn`). A Sequential or Functional model
    stays one, and a class with a `train_step` of its own stays that class, around rewritten models. Of another
    class what it computes becomes a Functional model, unless it can be made from inputs and outputs.

    Example:

    ```python
    model = kerasbn.rewrite(model, position="auto", learning_rate_scale=2.0)
    model.fit(x, y)
    ```

    Args:
        model: A Keras model: Sequential, Functional, or subclassed and called before. Of a subclassed
            model that trains in a way of its own (`train_step` and its kin) the models among its
            attributes are rewritten, and layers of the user's own that hold others; the result is of
            the same class, made without its `__init__`.
        position: Where batch normalization goes relative to the activation. `"before"`: right
            after each linear layer whose output goes on to further layers. `"after"`: right after
            each activation that follows a linear layer. `"auto"`: after s-shaped activations,
            before the others. `"none"`: nowhere. Defaults to `"auto"`.
        rules: Pairs of a glob over layer paths and a position or `"skip"`, such as
            `[("stage1/*", "after")]`. The first match wins over `position`, and over what would be
            left alone. For normalization that is there already it is `"keep"`, `"replace"`, `"remove"` or
            `"skip"`, which wins over `existing`. Defaults to `()`.
        norm: A layer instance whose configuration every inserted layer gets.
            `keras.layers.BatchNormalization()` makes models that load without kerasbn; where it cannot
            normalize a value, such as by groups that do not fit, nothing is inserted. Defaults to
            `None`: `kerasbn.layers.BatchNormalization(momentum=0.95, zero_debias=True)`, whose moving
            statistics are right from the first batch on and soon follow; where the optimizer accumulates
            gradients over k batches, with `accumulate=k`.
        existing: What becomes of normalization that is there already; a rule such as `("bn_*", "replace")` says it
            for some. `"replace"`: a layer like `norm` takes its place, under its name and on its axis. Among batch
            normalizations (Keras's, kerasbn's, synchronized, ghost, of another momentum or epsilon) weights and
            statistics go along, and inference stays as it is; the epsilon is that of the layer where `norm` is `None`,
            else gamma takes in that of `norm`. Any other, such as a `GroupNormalization` (its groups: the largest
            divisor of the channels up to those of `norm`), computes something else; with `data` its gamma and beta
            are fitted to what the layer computed, by least squares, and the plan says how near that comes; `preserve`
            does not apply. `"remove"`: it goes, for training anew, and what it normalized may get another. Outputs
            change; for inference, `kerasbn.fold`. Defaults to `"keep"`.
        recurrent: Whether recurrent layers are normalized as in Deep Speech 2: their input products, over
            the batch and all of its steps but those that are masked, h_t = f(B(W x_t) + U h_{t-1} + b).
            `"sequence_wise"`: every LSTM, GRU and SimpleRNN, also in `Bidirectional`, and every `RNN` of their
            cells becomes a `kerasbn.layers.BatchNormalizedRNN`, until `kerasbn.fold` makes it the layer
            again that it was. `"none"`: none. `"auto"`: those of three or more one upon another, as fewer
            gain little (docs/reproduce/speech.md), unless `norm` is Keras's, whose files are to load without
            kerasbn. A rule for a layer wins. On a GPU they train step by step, not in cuDNN's kernels.
            Defaults to `"auto"`.
        dropout: Which Dropout goes. `"redundant"`: what meets a batch normalization next, that of a
            recurrent layer's input products as well, with at most linear layers, activations, pooling and
            sums between, so no other normalization, recurrent layer or attention. `"all"`, `"none"`.
            Defaults to `"redundant"`.
        custom_layers: What becomes of the user's own layers that hold linear layers. `"open"`: what
            they do is recorded, and stands in the result as a model inside of their name, its layers
            at their paths, `"tower/res_1/conv1"`, so that the result loads without their classes.
            That is done only where it computes the same, at inference and in training, and nothing
            is lost; else the layer is kept whole, with the reason in the plan. `"keep"`: all are
            kept whole. Defaults to `"open"`.
        parts: Of a model that trains in its own way, the attributes whose networks are rewritten, such
            as `("encoder",)`; the others are carried over. Defaults to `None`: all.
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
        rates: Pairs of a glob over layer paths and a positive float, such as `[("stage1/*", 0.1)]`: what the
            learning rate is multiplied by for the weights of these layers, inserted ones among them
            (`"stage1/*_bn"`). The first match wins. The optimizer becomes one of a class derived from its own,
            which saves and loads with the rates; they are for the weights that are trained now, so freeze layers
            before. Defaults to `()`.
        decay_exclude: Which weights weight decay leaves out, besides those that the optimizer was told of and
            those of the normalizations that are inserted: `"normalization"`, those of all normalizations;
            `"bias"`, all biases; or a glob over layer paths. It is kept in a saved file, by a class as with
            `rates`. Defaults to `()`.
        l2: Positive float, the strength of the L2 regularizer that each kernel gets which has none. Defaults to
            `None`: none gets one.
        data: A sample of inputs: arrays in the structure of the model's inputs, or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches, with targets or
            without. Inserted layers start from the statistics measured on it, in one pass when the
            plan is applied, so that training goes on close to where the source stands. Defaults to
            `None`.
        inputs: A batch of inputs, for a subclassed model of which it does not show what it is called on:
            Keras records no dtypes, and no shapes where the class has a `build` of its own. Defaults to
            `None`: that of `data`, else the recorded shapes, else the default of the argument of `build`.
        preserve: Whether inserted batch normalization starts as the identity at inference, so that
            the result computes what the source does. Defaults to `True`.
        shared: What a layer that is called several times gets. `"auto"`: one normalization for calls that
            are twins (on values of one shape from the same layers, none feeding another, as in siamese
            networks), else one for each call, as for unrolled steps. `"per_call"`: one for each call.
            `"shared"`: one. Defaults to `"auto"`.
        fold: Whether batch normalization is folded away instead of inserted, as `kerasbn.fold`
            does. Defaults to `False`.
        merge_branches: Whether, with `fold`, parallel linear branches become one layer, as `kerasbn.fold` has
            it. Defaults to `True`.
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
    - [Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146), section 3.2 on learning rates by layer.
    - [Wu and He, 2018](https://arxiv.org/abs/1803.08494), group normalization, for batches too small for statistics.
    """
    with _keras.scope_of(model):
        return applied(plan(model, **options))


def fold(
    model: keras.Model, *, merge_branches: bool = True, custom_layers: CustomLayers = "open", inputs: Any = None
) -> keras.Model:
    """Fold batch normalization into the layers next to it, wherever that is exact.

    The result computes at inference what the source does, with fewer layers: each batch
    normalization that goes is multiplied into the weights of the linear layers ahead of it or behind it,
    in float64. It is a model for inference, not for further training: regularizers see other weights and values.
    What stays, stays for a reason: `kerasbn.plan(model, position="none", dropout="none", fold=True)` lists them.

    The source model stays as it is. The result keeps its class, name, inputs, outputs, the names of
    all other layers, what is frozen, and the compiled state. Models inside it may compute something
    else by themselves, where one takes in a normalization outside of it.

    Example:

    ```python
    serving = kerasbn.fold(model)
    ```

    Args:
        model: A Keras model: Sequential, Functional, or subclassed and called before.
        merge_branches: Whether sums of parallel linear branches, as in RepVGG, MobileOne, FastViT, RepViT and
            YOLO-NAS, become one layer: convolutions of one value (of several sizes, grouped, depthwise, or
            `Dense`), the value itself, batch normalizations and scales of it, added up. That is done wherever
            it is exact and takes no more multiplications. What only scales and shifts the channels of a linear
            layer goes into it as well. Defaults to `True`.
        custom_layers: Whether layers of the user's own that hold batch normalization are opened, as
            `kerasbn.rewrite` opens those with linear layers. Defaults to `"open"`.
        inputs: A batch of inputs, for a subclassed model of which it does not show what it is called on.
            Defaults to `None`.

    Returns:
        The folded model.

    Raises:
        UnsupportedModelError: if the model cannot be rebuilt faithfully.

    Reference:

    - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), Algorithm 2: batch normalization
      at inference is an affine map.
    - [Ding et al., 2021](https://arxiv.org/abs/2101.03697), RepVGG: parallel branches are one convolution.
    """
    options: Options = {"position": "none", "dropout": "none", "fold": True, "merge_branches": merge_branches}
    options |= {"custom_layers": custom_layers, "inputs": inputs}
    with _keras.scope_of(model):
        return applied(plan(model, **options))
