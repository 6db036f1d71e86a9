"""The order of the passes. All of them look at the same graph, each at the draft of those ahead of it.

What becomes of normalization that is there already is settled before: the others look at the graph with that done, so
that where one is removed another can be inserted, and one that is replaced counts as what takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kerasbn.errors import OptionError, by_path
from kerasbn.facts.facts import Facts
from kerasbn.graph.model import matches, type_of
from kerasbn.options import KINDS_OF_WEIGHTS, Options
from kerasbn.passes.add_l2 import add_l2
from kerasbn.passes.fold_normalization import fold_normalization
from kerasbn.passes.insert_normalization import insert_normalization
from kerasbn.passes.left_alone import check_rules
from kerasbn.passes.merge_branches import merge_branches
from kerasbn.passes.normalize_inputs import normalize_inputs
from kerasbn.passes.normalize_recurrent import normalize_recurrent
from kerasbn.passes.proposal import Draft, Edit, Pass
from kerasbn.passes.scale_regularizers import scale_regularizers
from kerasbn.passes.settle_existing import settle_existing
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
    add_l2,
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
    check_rules(facts, options)
    draft = Draft(facts.graph)
    draft.add(_within_parts(settle_existing(facts, options, draft), options["parts"]))
    facts = facts.after(draft.changes)
    for each in FOLDING if options["fold"] else INSERTING:
        draft.add(_within_parts(each(facts, options, draft), options["parts"]))
    _check_globs(facts, options, draft)
    return draft


def notes_on_rules(facts: Facts, options: Options, draft: Draft) -> Iterator[str]:
    """What to know of rules that ask for a normalization and bring none."""
    skips = {skip.site: skip for skip in reversed(draft.skips)}
    normalized = {edit.site for edit in draft.edits if edit.kind == "insert"}
    normalized |= {
        site for site, skip in skips.items() if skip.reason is Reason.COVERED and _is_within(site, options["parts"])
    }
    for glob, position in options["rules"]:
        named = [site for site in facts.graph.walk() if matches(site.path, glob) and not site.is_input]
        asks = position in ("auto", "before", "after") and named
        if asks and normalized.isdisjoint(site.address for site in named):
            site = next((each for each in named if each.address in skips), named[0])
            skip = skips.get(site.address)
            why = skip.detail if skip else f"{type_of(site.operation).__name__} is nothing that positions are for"
            yield f"The rule ({glob!r}, {position!r}) puts no normalization anywhere. {site.address}: {why}."


def _within_parts(outcomes: Iterable[Edit | Skip], parts: Sequence[str] | None) -> Iterator[Edit | Skip]:
    """What is proposed for the parts that were named, a skip for each other site."""
    left: set[str] = set()
    for each in outcomes:
        if isinstance(each, Skip) or _is_within(each.site, parts):
            yield each
        elif each.site not in left:
            left.add(each.site)
            yield Skip(each.site, Reason.OTHER_PART, "the option parts does not name it")


def _is_within(address: str, parts: Sequence[str] | None) -> bool:
    return parts is None or any(address.startswith(f"{part}/") for part in parts)


def _check_globs(facts: Facts, options: Options, draft: Draft) -> None:
    """Refuse rates, and exclusions from weight decay, for nothing.

    Raises:
        OptionError: if a glob matches no layer, of those that are inserted neither.
    """
    paths = [site.path for site in facts.graph.walk() if not site.is_input]
    for insert in draft.insertions:
        holder, slash, _ = insert.edge.address.rpartition("/")
        paths.append(f"{holder}{slash}{insert.layer.name}")
    globs = [("rates", glob) for glob, _ in options["rates"]]
    globs += [("decay_exclude", glob) for glob in options["decay_exclude"] if glob not in KINDS_OF_WEIGHTS]
    for option, glob in globs:
        if not any(matches(path, glob) for path in paths):
            kinds = f" Kinds are {' and '.join(map(repr, KINDS_OF_WEIGHTS))}." if option == "decay_exclude" else ""
            raise OptionError(
                f"Option {option} holds {glob!r}, which matches no layer of model {facts.graph.name!r}. "
                f"{by_path(glob, paths[0] if paths else 'conv1')}{kinds}"
            )
