"""The order of the passes. All of them look at the same graph, each at the draft of those ahead of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kerasbn.facts.facts import Facts
from kerasbn.options import Options
from kerasbn.passes.fold_normalization import fold_normalization
from kerasbn.passes.insert_normalization import insert_normalization
from kerasbn.passes.merge_branches import merge_branches
from kerasbn.passes.normalize_inputs import normalize_inputs
from kerasbn.passes.normalize_recurrent import normalize_recurrent
from kerasbn.passes.proposal import Draft, Edit, Pass
from kerasbn.passes.scale_regularizers import scale_regularizers
from kerasbn.passes.strip_dropout import strip_dropout
from kerasbn.passes.strip_local_response import strip_local_response
from kerasbn.reasons import Reason, Skip

INSERTING: tuple[Pass, ...] = (
    normalize_inputs,
    insert_normalization,
    normalize_recurrent,
    strip_local_response,
    strip_dropout,  # asks what will be normalized
    scale_regularizers,
)

FOLDING: tuple[Pass, ...] = (
    strip_local_response,
    strip_dropout,
    merge_branches,
    fold_normalization,  # looks at the graph without what is stripped, and with what is merged
    scale_regularizers,
)


def propose(facts: Facts, options: Options) -> Draft:
    """All that is to be done to a graph, and all that is not.

    Raises:
        OptionError: if an option does not fit the model.
    """
    draft = Draft(facts.graph)
    for each in FOLDING if options["fold"] else INSERTING:
        draft.add(_within_parts(each(facts, options, draft), options["parts"]))
    return draft


def _within_parts(outcomes: Iterable[Edit | Skip], parts: Sequence[str] | None) -> Iterator[Edit | Skip]:
    """What is proposed for the parts that were named, a skip for each other site."""
    left: set[str] = set()
    for each in outcomes:
        if parts is None or isinstance(each, Skip) or any(each.site.startswith(f"{part}/") for part in parts):
            yield each
        elif each.site not in left:
            left.add(each.site)
            yield Skip(each.site, Reason.OTHER_PART, "the option parts does not name it")
