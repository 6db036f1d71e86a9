"""Make one layer of parallel linear branches, as re-parameterization does (Ding et al., 2021: RepVGG).

A sum of convolutions of one value, of the value itself and of batch normalizations of it is one
convolution of that value: the kernels add up, each at its places. That is tried for every sum in a
graph, whoever wrote the block, and for what scales a linear layer (`kerasbn.passes.merging`).
"""

from __future__ import annotations

from collections.abc import Iterator

from kerasbn.facts.facts import Facts
from kerasbn.graph.edit import Change, Remove, Substitute
from kerasbn.options import Options
from kerasbn.passes.merging.search import Merge, search
from kerasbn.passes.proposal import Draft, Edit
from kerasbn.reasons import Refusal, Skip


def merge_branches(facts: Facts, options: Options, draft: Draft) -> Iterator[Edit | Skip]:
    """Propose one layer for each sum of parallel linear branches, with the reason for each one that stays."""
    if not options["merge_branches"]:
        return
    for found in search(facts):
        if isinstance(found, Skip):
            yield found
            continue
        try:
            yield from _edits(facts, draft, found)
        except Refusal as refusal:
            yield refusal.at(found.site.address)


def _edits(facts: Facts, draft: Draft, merge: Merge) -> Iterator[Edit]:
    """The edit of the sum, which makes all changes, and one for each normalization that goes with it."""
    site, like = merge.site, merge.merged.like
    if site.address in facts.named_outputs:
        name = site.name
    else:
        beside = like.path.rpartition("/")[0] == site.path.rpartition("/")[0]
        name = like.name if beside else draft.names.fresh(like.name, beside=site.path)
    layer = merge.merged.make(name)
    changes: list[Change] = [Substitute(site.address, layer, merge.merged.entering)]
    changes += [Remove(each.address) for each in merge.gone]
    what = "scale" if merge.branches == 1 else f"{merge.branches} branches"
    yield Edit(site.address, "merge", f"{what} into {name!r}", tuple(changes))
    for address in merge.norms:
        yield Edit(address, "fold", f"merged into {name!r}", ())
