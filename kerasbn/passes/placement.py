"""Decide where batch normalization goes: for each linear layer and each activation, a place or a reason.

    before   W x -> BN -> f      the layer's bias becomes BN's beta
    after    W x + b -> f -> BN
    auto     the table of `kerasbn.catalog.activations`, by what the linear layer's value reaches next

A layer that is called several times is left alone at every call if it must be at one: its calls
share one activation and one bias.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections import defaultdict
from typing import cast

import keras

from kerasbn.catalog import activations
from kerasbn.catalog.activations import PLACING
from kerasbn.catalog.linear import channel_axis
from kerasbn.catalog.roles import Role, activation_name
from kerasbn.errors import OptionError
from kerasbn.graph.model import CallSite, Graph, Value, core_of
from kerasbn.options import Options, RulePosition
from kerasbn.passes.proposal import Reason, Skip
from kerasbn.passes.surroundings import Surroundings


@dataclasses.dataclass(frozen=True)
class Place:
    """A place for one normalization.

    Attributes:
        site: The call site that it goes right behind, or ahead of.
        ahead: Whether it goes ahead of the site, and acts on what that site sees alone.
        serves: The call site of the layer that it is named after and takes its type from.
        position: Whether that is before or after the activation.
        axis: The axis of the channels there.
        detail: The activation, for people to read.
    """

    site: CallSite
    serves: CallSite
    position: str
    axis: int
    detail: str
    ahead: bool = False


@dataclasses.dataclass(frozen=True)
class Placements:
    """Every place, and the reason for every call site that gets none."""

    places: tuple[Place, ...]
    skips: tuple[Skip, ...]


@dataclasses.dataclass(frozen=True)
class _Block:
    """A call of a linear layer with the activations that its value reaches next."""

    linear: CallSite
    built_in: str
    activations: tuple[CallSite, ...]

    @property
    def names(self) -> tuple[str, ...]:
        if self.built_in != activations.LINEAR:
            return (self.built_in,)
        return tuple(cast("str", activation_name(cast("keras.Operation", site.operation))) for site in self.activations)

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.linear.path, *(site.path for site in self.activations))


@dataclasses.dataclass(frozen=True)
class _Refusal:
    reason: Reason
    detail: str


def place(graph: Graph, options: Options) -> Placements:
    """Find the places for batch normalization in a graph.

    Raises:
        OptionError: if a rule's glob matches no layer.
    """
    return _Placer(graph, options).place()


class _Placer:
    """The places and refusals found so far in one graph."""

    def __init__(self, graph: Graph, options: Options) -> None:
        self._graph = graph.flat()
        self._trained = graph.trained
        self._around = Surroundings(self._graph)
        self._options = options
        self._places: dict[str, Place] = {}
        self._skips: dict[str, _Refusal] = {}
        for glob, _ in options.rules:
            paths = [site.path for site in graph.walk()]
            if options.normalize_inputs:
                paths += [value.spec.name for value in keras.tree.flatten(graph.inputs)]
            if not any(fnmatch.fnmatchcase(path, glob) for path in paths):
                raise OptionError(
                    f"Rule {glob!r} matches no layer of model {graph.name!r}. Layers are matched by their path, "
                    f"such as {graph.sites[0].path if graph.sites else 'conv1'!r}; str(kerasbn.plan(model)) lists them."
                )

    def place(self) -> Placements:
        """Go through the graph, layer by layer."""
        blocks = {site: self._block(site) for site in self._graph.sites if self._around.role(site) is Role.LINEAR}
        for sites in self._graph.calls.values():
            if sites[0] in blocks:
                self._settle_layer([blocks[site] for site in sites])
        self._settle_others(claimed={site.address for block in blocks.values() for site in block.activations})
        return Placements(
            places=tuple(self._places.values()),
            skips=tuple(Skip(address, refusal.reason, refusal.detail) for address, refusal in self._skips.items()),
        )

    def _settle_layer(self, blocks: list[_Block]) -> None:
        positions = [self._position(block) for block in blocks]
        refusal = next((position for position in positions if isinstance(position, _Refusal)), None)
        by_address: dict[str, set[str | _Refusal]] = defaultdict(set)
        for block, position in zip(blocks, positions, strict=True):
            by_address[block.linear.address].add(position)
        for block in blocks:
            # One call site of a model that is called several times may lead to several activations.
            agreed = by_address[block.linear.address]
            self._settle(block, refusal or (agreed.copy().pop() if len(agreed) == 1 else "before"))

    def _block(self, site: CallSite) -> _Block:
        built_in = activations.name_of_function(getattr(core_of(site.operation), "activation", None))
        reached = self._around.next_sites(site) if built_in == activations.LINEAR else ()
        return _Block(site, built_in, tuple(user for user in reached if self._around.role(user) is Role.ACTIVATION))

    def _rule(self, *paths: str) -> RulePosition | None:
        for glob, position in self._options.rules:
            if any(fnmatch.fnmatchcase(path, glob) for path in paths):
                return position
        return None

    def _position(self, block: _Block) -> str | _Refusal:
        """Where the normalization of a block goes, or why it gets none."""
        rule = self._rule(*block.paths)
        if rule in ("skip", "none"):
            return _Refusal(Reason.RULE, f'a rule says "{rule}"')
        if self._options.position == "none" and rule is None:
            return _Refusal(Reason.POSITION, 'position="none"')
        if rule is None and (refusal := self._left_alone(block)):
            return refusal
        if channel_axis(cast("keras.layers.Layer", block.linear.operation)) is None:
            return _Refusal(Reason.CHANNEL_AXIS, "no single axis of its output holds the channels")
        position = rule or self._options.position
        if position == "auto":
            return self._automatic(block)
        if position == "after" and not block.names:
            return _Refusal(Reason.NO_ACTIVATION, "no activation follows")
        return position

    def _left_alone(self, block: _Block) -> _Refusal | None:
        site = block.linear
        if self._around.is_head(site):
            return _Refusal(Reason.OUTPUT, "yields an output of the model")
        if site.address in self._trained:
            return _Refusal(Reason.TRAINING, "the model around it is called with training=True")
        if site.operation in self._around.tied:
            return _Refusal(Reason.TIED_WEIGHTS, "shares a weight with another layer")
        if "selu" in block.names:
            return _Refusal(Reason.SELF_NORMALIZING, "selu normalizes by itself")
        if site in self._around.gates:
            return _Refusal(Reason.SQUEEZE_EXCITE, "computes a gate over the channels")
        behind = self._around.next_sites(site)
        if any(self._around.role(user) is Role.ATTENTION for user in behind):
            return _Refusal(Reason.ATTENTION, "yields what an attention multiplies")
        if behind and all(self._around.role(user) is Role.OTHER and _joins(user) for user in behind):
            return _Refusal(Reason.OPAQUE, f"joins others in {behind[0].address}, which is not looked into")
        if self._around.is_normalized(site):
            return _Refusal(Reason.NORMALIZED, "its block is normalized already")
        if self._options.position in ("auto", "before") and self._around.joins_trunk(site):
            return _Refusal(Reason.COVERED, "the sum is normalized ahead of each activation")
        return None

    def _automatic(self, block: _Block) -> str | _Refusal:
        placings = {PLACING.get(name, "before") for name in block.names}
        if placings == {"none"}:
            return _Refusal(Reason.ACTIVATION, f"{', '.join(block.names)} is left as it is")
        return "after" if placings == {"after"} else "before"

    def _settle(self, block: _Block, position: str | _Refusal) -> None:
        site = block.linear
        if isinstance(position, _Refusal):
            self._skips[site.address] = position
            self._skips.update((activation.address, position) for activation in block.activations)
        elif position == "before":
            self._add(site, serves=site, position="before", detail=_described("before", block.names))
            covered = _Refusal(Reason.COVERED, f"normalized at {site.address}, before the activation")
            self._skips.update((activation.address, covered) for activation in block.activations)
        elif block.built_in != activations.LINEAR:
            self._add(site, serves=site, position="after", detail=_described("after", block.names))
        else:
            for activation in block.activations:
                self._add(activation, serves=site, position="after", detail=_described("after", block.names))
            behind = ", ".join(activation.address for activation in block.activations)
            self._skips[site.address] = _Refusal(Reason.COVERED, f"normalized at {behind}, after the activation")

    def _settle_others(self, claimed: set[str]) -> None:
        """The sites outside of blocks: activations behind something else, embeddings, attention, opaque layers."""
        for site in self._graph.sites:
            role = self._around.role(site)
            if role is Role.ACTIVATION and site.address not in claimed:
                self._settle_free_activation(site)
            elif role is Role.EMBEDDING:
                self._skips[site.address] = _Refusal(Reason.EMBEDDING, "embeddings are looked up, not computed")
            elif isinstance(site.operation, keras.layers.SpectralNormalization):
                self._skips[site.address] = _Refusal(Reason.NORMALIZED, "its weights are normalized")
            elif isinstance(site.operation, keras.layers.Layer) and site.operation.weights:
                if role is Role.ATTENTION:
                    self._skips[site.address] = _Refusal(Reason.ATTENTION, "attention is left as it is")
                elif role is Role.OTHER:
                    kind = type(site.operation).__name__
                    self._skips[site.address] = _Refusal(Reason.OPAQUE, f"{kind} is carried over as it is")

    def _settle_free_activation(self, site: CallSite) -> None:
        rule = self._rule(site.path)
        name = activation_name(cast("keras.Operation", site.operation)) or activations.UNKNOWN
        ahead = rule == "before" or (rule in (None, "auto") and self._pre_activates(site, name))
        if ahead:
            self._add(site, serves=site, position="before", detail=f"before {name}, in its branch alone", ahead=True)
        elif rule == "after":
            self._add(site, serves=site, position="after", detail=_described("after", (name,)))
        else:
            self._skips[site.address] = self._why_free_activation_is_left(site, rule)

    def _pre_activates(self, site: CallSite, name: str) -> bool:
        return (
            self._options.position in ("auto", "before")
            and site in self._around.pre_activations
            and PLACING.get(name, "before") == "before"
            and not self._around.comes_from_normalization(site)
            and not self._around.is_head(site)
        )

    def _why_free_activation_is_left(self, site: CallSite, rule: RulePosition | None) -> _Refusal:
        if rule in ("skip", "none"):
            return _Refusal(Reason.RULE, f'a rule says "{rule}"')
        if self._options.position == "none":
            return _Refusal(Reason.POSITION, 'position="none"')
        if self._around.comes_from_normalization(site):
            return _Refusal(Reason.NORMALIZED, "what it acts on is normalized already")
        return _Refusal(Reason.NOT_AFTER_LINEAR, "does not follow a linear layer")

    def _add(self, site: CallSite, *, serves: CallSite, position: str, detail: str, ahead: bool = False) -> None:
        self._places[site.address] = Place(site, serves, position, self._channel_axis(site), detail, ahead)

    def _channel_axis(self, site: CallSite) -> int:
        """The axis of the channels in a site's output: that of the linear layer behind it, else the last one."""
        while self._around.role(site) is not Role.LINEAR:
            producer = self._graph.producers.get(site.inputs[0]) if site.inputs else None
            if producer is None or self._around.role(site) is Role.REARRANGEMENT:
                return -1
            site = producer
        return channel_axis(cast("keras.layers.Layer", site.operation)) or -1


def _joins(site: CallSite) -> bool:
    """Whether a site takes several values, a mask aside."""
    return sum(isinstance(leaf, Value) for leaf in keras.tree.flatten(site.args)) > 1


def _described(position: str, names: tuple[str, ...]) -> str:
    if not names:
        return "behind the layer, where no activation follows"
    listed = ", ".join(dict.fromkeys(names))
    unknown = ", a function of your own" if activations.UNKNOWN in names else ""
    return f"{position} {listed}{unknown}"
