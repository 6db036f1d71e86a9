"""Options of the command in TOML files, and in recipes."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kerasbn.cli.rule import Pair
from kerasbn.errors import OptionError, quoted
from kerasbn.options import DEFAULTS
from kerasbn.recipes import BN_X5, BN_X30

RECIPES: Mapping[str, Mapping[str, Any]] = {"bn-x5": BN_X5, "bn-x30": BN_X30}

OF_ONE_RUN = ("config", "dry_run", "force", "unsafe", "as_json", "quiet", "verbose", "version", "help")
"""The parameters of the command that are of one run, and say nothing of what comes out; they cannot stand in a file."""


def take_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Let a file say what the options are that are not given. Recipes come after it.

    Its keys are the options, with `_` for `-`, or their names in Python.

    Raises:
        OptionError: if the file cannot be read, sets what is no option, or to what it cannot be.
    """
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"Config {str(path)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise OptionError(f"Config {str(path)!r} is not valid TOML: {quoted(error)}.") from error
    try:
        options = _options(context, content)
    except OptionError as error:
        raise OptionError(f"Config {str(path)!r}: {error}") from error
    context.default_map = {**(context.default_map or {}), **options}


def take_recipe(context: click.Context, parameter: click.Parameter, name: str | None) -> None:
    """Let a recipe say what the options are that neither are given nor stand in a file."""
    if name is not None:
        context.default_map = {**RECIPES[name], **(context.default_map or {})}


def _options(context: click.Context, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file sets, by the parameters' names."""
    parameters = {key: each for each in context.command.params for key in _keys(each)}
    options: dict[str, Any] = {}
    for key, value in content.items():
        parameter = parameters.get(key)
        if parameter is None or parameter.name is None or not isinstance(parameter, click.Option):
            raise OptionError(_unknown(key, [key for key, each in parameters.items() if each.name not in OF_ONE_RUN]))
        if parameter.name in OF_ONE_RUN:
            raise OptionError(f"Option {key} is of one run and cannot stand in a file. Give it on the command line.")
        if parameter.name in options:
            raise OptionError(f"Option {key} is set twice, by two of its names. Leave one out.")
        _check(context, parameter, key, value)
        options[parameter.name] = value
    return options


def _keys(parameter: click.Parameter) -> set[str]:
    """What an option is called in a file: `lr_scale`, or as in Python `learning_rate_scale`."""
    flags = {flag.removeprefix("--").replace("-", "_") for flag in parameter.opts if flag.startswith("--")}
    return flags | {str(parameter.name)}


def _unknown(key: str, known: list[str]) -> str:
    if key in DEFAULTS:
        return f"Option {key} cannot stand in a file. Pass it to kerasbn.rewrite in Python."
    close = difflib.get_close_matches(key.replace("-", "_"), known, 1)
    hint = f"Did you mean {close[0]!r}?" if close else f"The options are {', '.join(sorted(known))}."
    return f"Unknown option {key!r}. {hint}"


def _check(context: click.Context, parameter: click.Option, key: str, value: Any) -> None:
    """Refuse a value that is not of an option's type: TOML has types, where a command line has words alone."""
    values = value if parameter.multiple else [value]
    if not isinstance(values, list):
        raise OptionError(f"Option {key} is {value!r}; it must be a list.")
    expected: tuple[type, ...]
    if isinstance(parameter.type, click.types.IntParamType):
        expected, what = (int,), "a whole number"
    elif isinstance(parameter.type, click.types.FloatParamType):
        expected, what = (int, float), "a number"
    elif parameter.is_flag:
        expected, what = (bool,), "true or false"
    elif isinstance(parameter.type, Pair):
        expected, what = (str, list), f"a string such as {parameter.type.example!r}, or a pair"
    else:
        expected, what = (str,), "a string"
    for each in values:
        if not isinstance(each, expected) or (isinstance(each, bool) and bool not in expected):
            raise OptionError(f"Option {key} is {each!r}; it must be {what}.")
    try:
        parameter.type_cast_value(context, value)
    except click.BadParameter as error:
        raise OptionError(f"Option {key} is not valid: {error.message}") from error
