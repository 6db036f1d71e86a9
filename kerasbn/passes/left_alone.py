"""What is left alone, whatever kind of layer it is: by a rule, or but for one."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kerasbn.catalog.roles import NORMALIZING, role_of
from kerasbn.errors import OptionError, by_path
from kerasbn.facts.facts import Facts
from kerasbn.graph.model import CallSite, matches
from kerasbn.options import OF_EXISTING, Options, RulePosition
from kerasbn.reasons import Reason, Refusal


def rule_for(options: Options, *paths: str) -> RulePosition | None:
    """What the first rule about positions says that matches one of some paths; `None` if none does."""
    return next((each for each in _rules_for(options, paths) if each not in OF_EXISTING), None)


def rule_for_existing(options: Options, *paths: str) -> RulePosition | None:
    """What the first rule about existing normalization says that matches one of some paths; `None` if none does."""
    return next((each for each in _rules_for(options, paths) if each in (*OF_EXISTING, "skip")), None)


def _rules_for(options: Options, paths: Collection[str]) -> Iterator[RulePosition]:
    return (position for glob, position in options["rules"] if any(matches(path, glob) for path in paths))


def check_left_alone_by(rule: RulePosition | None) -> None:
    """Refuse what a rule leaves alone.

    Raises:
        Refusal: if it does.
    """
    if rule in ("skip", "none", "keep"):
        raise Refusal(Reason.RULE, f'a rule says "{rule}"')


def check_learns(facts: Facts, site: CallSite) -> None:
    """Refuse a layer that normalizing would not help to train, or not by itself.

    Raises:
        Refusal: if it is one.
    """
    if site.address in facts.trained:
        raise Refusal(Reason.TRAINING, "the model around it is called with training=True")
    if (why := facts.never_trains(site.operation)) is not None:
        raise Refusal(Reason.NEVER_TRAINS, f"it never trains: {why}")
    if site.operation in facts.tied:
        raise Refusal(Reason.TIED_WEIGHTS, "shares a weight with another layer")


def check_rules(facts: Facts, options: Options) -> None:
    """Refuse rules for nothing.

    Raises:
        OptionError: if a rule's glob matches no layer, or no normalization where it is about those alone.
    """
    sites = [site for site in facts.graph.walk() if not site.is_input]
    norms = [site.path for site in sites if role_of(site.operation) in NORMALIZING]
    inputs = [site for site in facts.graph.sites if site.is_input and options["normalize_inputs"]]
    paths = [site.path for site in (*sites, *inputs)]
    for glob, position in options["rules"]:
        if not any(matches(path, glob) for path in paths):
            raise OptionError(
                f"Rule {glob!r} matches no layer of model {facts.graph.name!r}. "
                f"{by_path(glob, paths[0] if paths else 'conv1')} str(kerasbn.plan(model)) lists them."
            )
        if position in OF_EXISTING and not any(matches(path, glob) for path in norms):
            raise OptionError(
                f"Rule {glob!r} says {position!r}, which is for normalization that is there already, and matches none "
                f"of model {facts.graph.name!r}. "
                + (f"Its normalizations are matched by their path, such as {norms[0]!r}." if norms else "It has none.")
            )
