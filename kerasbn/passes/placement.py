"""Decide where batch normalization goes: for each linear layer and each activation, a place or a reason.

    before   W x -> BN -> f      the layer's bias becomes BN's beta
    after    W x + b -> f -> BN
    auto     the table of `kerasbn.catalog.activations`, by what the linear layer's value reaches next

A layer that is called several times is left alone at every call if it must be at one: its calls
share one activation and one bias.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from typing import cast

import keras

from kerasbn import _keras
from kerasbn.catalog import activations
from kerasbn.catalog.activations import PLACING
from kerasbn.catalog.linear import channel_axis
from kerasbn.catalog.roles import OPAQUE, Role, activation_name, keeps_axes, role_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Edge, ahead, behind
from kerasbn.graph.model import CallSite, Value, core_of
from kerasbn.options import Options, RulePosition
from kerasbn.passes.left_alone import check_learns, check_left_alone_by, rule_for
from kerasbn.reasons import Reason, Refusal, Skip


@dataclasses.dataclass(frozen=True)
class Place:
    """A place for one normalization.

    Attributes:
        site: The call site next to which it goes.
        edge: On which side of it.
        serves: The call site of the layer that it is named after and takes its type from.
        position: Whether that is before or after the activation.
        axis: The axis of the channels there.
        detail: The activation, for people to read.
    """

    site: CallSite
    edge: Edge
    serves: CallSite
    position: str
    axis: int
    detail: str

    @property
    def value(self) -> Value:
        """What it normalizes."""
        return self.site.outputs[0] if self.edge == behind(self.site.address) else self.site.inputs[0]

    @property
    def takes_over_output(self) -> bool:
        """Whether it goes right behind the layer that it serves, before the activation."""
        return self.position == "before" and self.edge == behind(self.serves.address)


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

    def normalized(self, position: str) -> tuple[CallSite, ...]:
        """The sites whose values are normalized."""
        return self.activations if position == "after" and self.built_in == activations.LINEAR else (self.linear,)


def place(facts: Facts, options: Options, check: Callable[[Value, int], None]) -> Placements:
    """Find the places for batch normalization in a graph.

    Args:
        facts: The facts about the graph.
        options: The options.
        check: Refuses a value, whose channels are on a given axis, that the normalization to insert cannot take.
    """
    return _Placer(facts, options, check).place()


class _Placer:
    """The places and refusals found so far in one graph."""

    def __init__(self, facts: Facts, options: Options, check: Callable[[Value, int], None]) -> None:
        self._facts = facts
        self._flow = facts.flow
        self._options = options
        self._check = check
        self._places: dict[str, Place] = {}
        self._skips: dict[str, Skip] = {}

    def place(self) -> Placements:
        """Go through the graph, layer by layer."""
        blocks = {site: self._block(site) for site in self._flow.sites if self._flow.role(site) is Role.LINEAR}
        for sites in self._facts.calls.values():
            if sites[0] in blocks:
                self._settle_layer([blocks[site] for site in sites])
        self._settle_others(claimed={site.address for block in blocks.values() for site in block.activations})
        return Placements(
            places=tuple(self._places.values()),
            skips=tuple(self._skips.values()),
        )

    def _settle_layer(self, blocks: list[_Block]) -> None:
        positions: dict[str, set[str]] = defaultdict(set)
        refusal = None
        for block in blocks:
            try:
                positions[block.linear.address].add(self._position(block))
            except Refusal as refused:
                refusal = refusal or refused.with_traceback(None)
        for block in blocks:
            if refusal:
                self._leave(refusal, block.linear, *block.activations)
            else:
                # One call site of a model that is called several times may lead to several activations.
                agreed = positions[block.linear.address]
                self._settle(block, next(iter(agreed)) if len(agreed) == 1 else "before")

    def _block(self, site: CallSite) -> _Block:
        built_in = activations.name_of_function(getattr(core_of(site.operation), "activation", None))
        reached = self._flow.next_sites(site) if built_in == activations.LINEAR else ()
        return _Block(site, built_in, tuple(user for user in reached if self._flow.role(user) is Role.ACTIVATION))

    def _position(self, block: _Block) -> str:
        """Where the normalization of a block goes.

        Raises:
            Refusal: if it gets none.
        """
        rule = rule_for(self._options, *block.paths)
        self._check_asked_for(rule, block.linear)
        if rule is None:
            self._check_left_alone(block)
        if channel_axis(cast("keras.layers.Layer", block.linear.operation)) is None:
            raise Refusal(Reason.CHANNEL_AXIS, "no single axis of its output holds the channels")
        position: str = rule or self._options["position"]
        gates = any(site in self._facts.gates.gating for site in (block.linear, *block.activations))
        if gates and rule is None and position == "after":
            raise Refusal(Reason.GATE, "its sigmoid multiplies, and behind a normalization would be no gate")
        if position == "auto":
            position = "before" if gates else self._automatic(block)
        elif position == "after" and not block.names:
            raise Refusal(Reason.NO_ACTIVATION, "no activation follows")
        if position == "after" and rule is None and any(site in self._facts.heads for site in block.activations):
            raise Refusal(Reason.OUTPUT, "its activation yields an output of the model")
        for site in block.normalized(position):
            self._check(site.outputs[0], self._channel_axis(site))
        return position

    def _check_asked_for(self, rule: RulePosition | None, site: CallSite) -> None:
        check_left_alone_by(rule)
        if self._options["position"] == "none" and rule is None:
            self._check_not_normalized(site)  # the better reason, if it is one
            raise Refusal(Reason.POSITION, 'position="none"')

    def _check_not_normalized(self, site: CallSite) -> None:
        if self._facts.blocks.is_normalized(site):
            raise Refusal(Reason.NORMALIZED, "its block is normalized already")

    def _check_left_alone(self, block: _Block) -> None:
        """Refuse what is left alone but for a rule."""
        site = block.linear
        if site in self._facts.heads:
            raise Refusal(Reason.OUTPUT, "yields an output of the model")
        check_learns(self._facts, site)
        if "selu" in block.names:
            raise Refusal(Reason.SELF_NORMALIZING, "selu normalizes by itself")
        if site in self._facts.gates.squeeze_excite:
            raise Refusal(Reason.SQUEEZE_EXCITE, "computes a gate over the channels")
        if site in self._facts.gates.modulators:
            raise Refusal(Reason.MODULATOR, "only scales or shifts the features of another branch")
        users = self._flow.next_sites(site)
        if not self._facts.attended.isdisjoint(site.outputs):
            raise Refusal(Reason.ATTENTION, "yields what an attention multiplies")
        if users and all(self._flow.role(user) in OPAQUE and _joins(user) for user in users):
            raise Refusal(Reason.OPAQUE, f"joins others in {users[0].address}, which is not looked into")
        self._check_not_normalized(site)
        if self._options["position"] == "auto" and site in self._facts.normalized_branches:
            raise Refusal(Reason.NORMALIZED, "its residual branch is normalized already")
        if self._options["position"] in ("auto", "before") and self._facts.trunk.is_joined_by(site):
            raise Refusal(Reason.COVERED, "the sum is normalized ahead of each activation")

    def _automatic(self, block: _Block) -> str:
        placings = {PLACING.get(name, "before") for name in block.names}
        if placings == {"none"}:
            raise Refusal(Reason.ACTIVATION, f"{', '.join(block.names)} is left as it is")
        return "after" if placings == {"after"} else "before"

    def _settle(self, block: _Block, position: str) -> None:
        site = block.linear
        detail = _described(position, block.names)
        normalized = block.normalized(position)
        for each in normalized:
            self._add(each, behind(each.address), site, position, detail)
        listed = ", ".join(each.address for each in normalized)
        covered = Refusal(Reason.COVERED, f"normalized at {listed}, {position} the activation")
        self._leave(covered, *(each for each in (site, *block.activations) if each not in normalized))

    def _settle_others(self, claimed: set[str]) -> None:
        """The sites outside of blocks: activations behind something else, embeddings, attention, opaque layers."""
        for site in self._flow.sites:
            role = self._flow.role(site)
            if role is Role.ACTIVATION and site.address not in claimed:
                self._settle_free_activation(site)
            elif role is Role.EMBEDDING:
                self._leave(Refusal(Reason.EMBEDDING, "embeddings are looked up, not computed"), site)
            elif isinstance(site.operation, keras.layers.SpectralNormalization):
                self._leave(Refusal(Reason.NORMALIZED, "its weights are normalized"), site)
            elif isinstance(site.operation, keras.layers.Layer) and site.operation.weights:
                if role is Role.ATTENTION:
                    self._leave(Refusal(Reason.ATTENTION, "attention is left as it is"), site)
                elif role is Role.OTHER:
                    self._leave(self._why_whole(site.operation), site)

    def _why_whole(self, layer: keras.layers.Layer) -> Refusal:
        """Why a layer with weights is not looked into."""
        kind = type(layer).__name__
        if (refusal := self._facts.kept.get(layer)) is None:
            return Refusal(Reason.OPAQUE, f"{kind} is carried over as it is")
        inside = sum(role_of(each) is Role.LINEAR for each in _keras.sublayers(layer)[1:])
        return Refusal(refusal.reason, f"{kind} {refusal.detail}; linear layers inside: {inside}")

    def _settle_free_activation(self, site: CallSite) -> None:
        rule = rule_for(self._options, site.path)
        name = activation_name(cast("keras.Operation", site.operation)) or activations.UNKNOWN
        before = rule == "before" or (rule in (None, "auto") and self._pre_activates(site, name))
        try:
            if not before and rule != "after":
                self._check_asked_for(rule, site)
                if self._facts.blocks.comes_from_normalization(site):
                    raise Refusal(Reason.NORMALIZED, "what it acts on is normalized already")
                raise Refusal(Reason.NOT_AFTER_LINEAR, "does not follow a linear layer")
            self._check(site.outputs[0], self._channel_axis(site))  # its input is of the same shape
        except Refusal as refusal:
            self._leave(refusal, site)
            return
        if before:
            self._add(site, ahead(site.address), site, "before", f"before {name}, in its branch alone")
        else:
            self._add(site, behind(site.address), site, "after", _described("after", (name,)))

    def _pre_activates(self, site: CallSite, name: str) -> bool:
        return (
            self._options["position"] in ("auto", "before")
            and site in self._facts.trunk.pre_activations
            and PLACING.get(name, "before") == "before"
            and not self._facts.blocks.comes_from_normalization(site)
            and site not in self._facts.heads
        )

    def _add(self, site: CallSite, edge: Edge, serves: CallSite, position: str, detail: str) -> None:
        self._places[site.address] = Place(site, edge, serves, position, self._channel_axis(site), detail)

    def _leave(self, refusal: Refusal, *sites: CallSite) -> None:
        self._skips.update((site.address, refusal.at(site.address)) for site in sites)

    def _channel_axis(self, site: CallSite) -> int:
        """The axis of the channels in a site's output: that of the linear layer behind it, else the last one."""
        while self._flow.role(site) is not Role.LINEAR:
            producer = self._flow.producer(site.inputs[0]) if site.inputs else None
            is_rearranged = self._flow.role(site) is Role.REARRANGEMENT and not keeps_axes(site.operation)
            if producer is None or is_rearranged:
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
