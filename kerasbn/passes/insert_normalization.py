"""Insert a normalization at each place; the bias of the linear layer right ahead of it becomes its beta.

In training, BN subtracts the mean of the batch, so a bias before it would be redundant (Ioffe &
Szegedy, 2015, section 3.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import keras

from kerasbn.catalog.linear import adds_bias_in_place, channel_bias, linear_of
from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Change, Configure, Insert
from kerasbn.graph.model import CallSite
from kerasbn.options import Options
from kerasbn.passes.placement import Place, place
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.passes.prototype import Prototype
from kerasbn.passes.split_activation import split_activation
from kerasbn.reasons import Skip


def insert_normalization(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose a normalization for each place, and to split the activations off that it stands before.

    Raises:
        OptionError: if `norm` is not a layer instance that normalizes, or cannot
            start as the identity where `preserve` asks for it.
    """
    prototype = Prototype.asked_for(facts, options)
    placements = place(facts, options, prototype.check)
    yield from placements.skips
    yield from split_activation(facts, placements.places, draft.names)
    for layer, places in _by_served_layer(placements.places).items():
        bias = channel_bias(layer) if _takes_bias(layer, places, facts.calls[layer], prototype) else None
        changes: list[Change] = [] if bias is None else [_without_bias(layer)]
        for group, why in _that_share_one(places, facts, options):
            first = group[0]
            name = draft.names.fresh(f"{first.serves.name}_bn", beside=first.site.path)
            like = layer if isinstance(layer, keras.layers.Layer) else None
            spec = prototype.named(name, first.axis, first.value, like=like, bias=bias)
            for each in group:
                yield Edit(
                    site=each.site.address,
                    kind="insert",
                    detail=f"{name!r} ({spec.cls.__name__}) {each.detail}"
                    + ("" if bias is None else "; the bias becomes its beta")
                    + why,
                    changes=(*changes, Insert(each.edge, spec)),
                )
                changes = []


def _that_share_one(places: list[Place], facts: Facts, options: Options) -> Iterator[tuple[list[Place], str]]:
    """The places of one layer in groups that get one normalization, each with the reason for people to read."""
    if len(places) == 1 or options["shared"] == "shared":
        yield places, ""
    elif options["shared"] == "per_call":
        yield from (([each], "") for each in places)
    else:
        calls = [[each for each in places if each.serves is site] for site in dict.fromkeys(p.serves for p in places)]
        several = "; one for each call, as they are no twins" if len(calls) > 1 else ""
        for sites in facts.twins.groups([call[0].serves for call in calls]):
            twins = [call for call in calls if call[0].serves in sites]
            for alike in zip_longest(*twins):  # a call has several places where it leads to several activations
                group = [each for each in alike if each is not None]
                yield group, "; one for its calls, which are twins" if len(twins) > 1 else several


def _by_served_layer(places: Iterable[Place]) -> Mapping[Any, list[Place]]:
    groups: dict[Any, list[Place]] = defaultdict(list)
    for each in places:
        groups[each.serves.operation].append(each)
    return groups


def _takes_bias(layer: Any, places: list[Place], calls: Collection[CallSite], prototype: Prototype) -> bool:
    """Whether a bias of the layer becomes beta: at every call of it a normalization follows at once, on its axis."""
    return (
        linear_of(layer) is not None
        and prototype.takes_bias
        and {each.site.address for each in places if each.takes_over_output} == {site.address for site in calls}
        and all(adds_bias_in_place(site) for site in calls)
    )


def _without_bias(layer: Any) -> Configure:
    linear = linear_of(layer)
    assert linear is not None
    return Configure(layer, dict([linear.no_bias]))
