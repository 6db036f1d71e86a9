"""The order of the passes. All of them look at the same graph, each at the draft of those ahead of it."""

from __future__ import annotations

from kerasbn.facts.facts import Facts
from kerasbn.options import Options
from kerasbn.passes.fold_normalization import fold_normalization
from kerasbn.passes.insert_normalization import insert_normalization
from kerasbn.passes.normalize_inputs import normalize_inputs
from kerasbn.passes.proposal import Draft, Pass
from kerasbn.passes.scale_regularizers import scale_regularizers
from kerasbn.passes.strip_dropout import strip_dropout
from kerasbn.passes.strip_local_response import strip_local_response

INSERTING: tuple[Pass, ...] = (
    normalize_inputs,
    insert_normalization,
    strip_local_response,
    strip_dropout,  # asks what will be normalized
    scale_regularizers,
)

FOLDING: tuple[Pass, ...] = (
    strip_local_response,
    strip_dropout,
    fold_normalization,  # passes through what is stripped
    scale_regularizers,
)


def propose(facts: Facts, options: Options) -> Draft:
    """All that is to be done to a graph, and all that is not.

    Raises:
        OptionError: if an option does not fit the model.
    """
    draft = Draft(facts.graph)
    for each in FOLDING if options["fold"] else INSERTING:
        draft.add(each(facts, options, draft))
    return draft
