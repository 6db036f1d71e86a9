"""What batch normalization gets and a model yields on data: at inference, as in training, and with Dropout on."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import keras
import numpy as np

from kerasbn import _keras
from kerasbn.arrays import array_of
from kerasbn.catalog.norms import is_frozen, norms_at, norms_in
from kerasbn.catalog.roles import drops
from kerasbn.graph.model import CallSite
from kerasbn.graph.read import read_to_run
from kerasbn.graph.run import Runner, call_at_inference
from kerasbn.statistics.data import batches
from kerasbn.statistics.moments import Meter, Moments
from kerasbn.statistics.running import running

Norm: TypeAlias = keras.layers.BatchNormalization


@dataclasses.dataclass
class Evidence:
    """What was seen.

    Attributes:
        examples: How many examples there were in all.
        fewest: How many in the smallest batch but the last.
        in_training: The moments of what each normalization gets where all normalize as in training, Dropout off.
        with_dropout: The same with Dropout on.
        told: The normalizations that were told to run as in training by those who called them at inference.
        distance: How far outputs are from those of inference where all normalize as in training: the root mean square,
            by that of how much outputs differ between examples; by output.
    """

    examples: int
    fewest: int
    in_training: dict[Norm, Moments]
    with_dropout: dict[Norm, Moments]
    told: set[Norm]
    distance: list[float]


def watched(model: keras.Model, data: Any, steps: int | None) -> Evidence:
    """Run a model on data, which leaves it as it is."""
    watch = _Watch(model)
    with _keras.aside(model):  # moving statistics and random numbers are forgotten in the end
        for inputs in batches(model, data, "Diagnosing", steps):
            with running(model):
                watch.take(inputs)
    return watch.evidence()


class _Watch:
    """Runs batches through a model, in each of the ways."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._norms = norms_in(model)
        self._trained = [norm for norm in self._norms if not is_frozen(norm)]
        self._dropping = [layer for layer in _keras.sublayers(model) if drops(layer)]
        self._run = _ways_through(model)
        self._meters: dict[str, Meter] = defaultdict(Meter)
        self._rows: list[int] = []
        self._told: set[Norm] = set()
        self._distances: list[_Distance] = []

    def take(self, inputs: list[Any]) -> None:
        """Take a batch in."""
        self._rows.append(next((leaf.shape[0] for leaf in keras.tree.flatten(inputs) if len(leaf.shape)), 0))
        with _keras.observed(self._norms, self._note_told):
            inferred = self._run(inputs)
        with _keras.told(self._trained, training=True):
            trained = self._metered(inputs, "trained")
            if self._dropping:
                with _keras.told(self._dropping, training=True):
                    self._metered(inputs, "dropped")
        if not self._distances:
            self._distances = [_Distance() for _ in inferred]
        for distance, *pair in zip(self._distances, inferred, trained, strict=True):
            distance.take(*pair)

    def _metered(self, inputs: list[Any], way: str) -> list[Any]:
        with _keras.observed(self._norms, self._meters[way]):
            return self._run(inputs)

    def _note_told(self, norm: Norm, inputs: Any, training: Any = None, mask: Any = None) -> None:
        if training is True:
            self._told.add(norm)

    def evidence(self) -> Evidence:
        """What was seen so far."""
        found = {name: dict(meter.read()) for name, meter in self._meters.items()}
        whole = self._rows[:-1] or self._rows  # the last batch may be a smaller rest
        return Evidence(
            examples=sum(self._rows),
            fewest=min(whole),
            in_training=found.get("trained", {}),
            with_dropout=found.get("dropped", {}),
            told=self._told,
            distance=[distance.relative for distance in self._distances],
        )


def _ways_through(model: keras.Model) -> Callable[[list[Any]], list[Any]]:
    """What runs a model at inference on a batch, as `batches` gives it, and gives its outputs that are numbers."""
    if not _keras.is_graph(model):
        return lambda inputs: _numbers(model(*inputs, training=False))
    flat = read_to_run(model).flat
    runner = Runner(flat, lambda site: bool(norms_at(site)) or not flat.output_values.isdisjoint(site.outputs))

    def run(inputs: list[Any]) -> list[Any]:
        kept: dict[Any, Any] = {}

        def call(site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            outputs = call_at_inference(site, args, kwargs)
            made = zip(site.outputs, keras.tree.flatten(outputs), strict=True)
            kept.update((value, tensor) for value, tensor in made if value in flat.output_values)
            return outputs

        runner.advance(runner.start(inputs), call)
        return _numbers(kept[value] for value in keras.tree.flatten(flat.outputs) if value in kept)

    return run


def _numbers(outputs: Iterable[Any]) -> list[Any]:
    leaves = keras.tree.flatten(outputs if isinstance(outputs, dict) or keras.ops.is_tensor(outputs) else list(outputs))
    return [leaf for leaf in leaves if "float" in keras.backend.standardize_dtype(leaf.dtype)]


class _Distance:
    """How far one output is from another, pooled over batches."""

    def __init__(self) -> None:
        self._apart = 0.0
        self._spread = np.zeros(2)

    def take(self, inferred: Any, trained: Any) -> None:
        """Take a batch in."""
        one, other = array_of(inferred), array_of(trained)
        with np.errstate(all="ignore"):  # what is not finite is seen in the end
            self._apart += float(np.sum((one - other) ** 2))
            self._spread += [np.sum((each - each.mean(axis=0)) ** 2) for each in (one, other)]

    @property
    def relative(self) -> float:
        """The root mean square of the distance, by that of the outputs around their mean, where that is greater."""
        if self._apart == 0:
            return 0.0
        with np.errstate(all="ignore"):
            relative = float(np.sqrt(self._apart / np.max(self._spread)))
        return relative if np.isfinite(relative) else np.inf
