"""Options in TOML files."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from kerasbn.errors import OptionError, quoted
from kerasbn.options import check_names, checked

NORMS = ("kerasbn", "keras")
"""Whose batch normalization is inserted, where there is no layer to show."""


def load_config(path: Path, offered: Collection[str]) -> dict[str, Any]:
    """The options that a file sets, as `kerasbn.rewrite` takes them.

    Args:
        path: A TOML file whose keys are options.
        offered: The options that can stand in a file; `norm` by the name of a library.

    Raises:
        OptionError: if the file cannot be read, sets what is no option, or to what it cannot be.
    """
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"Config {str(path)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise OptionError(f"Config {str(path)!r} is not valid TOML: {quoted(error)}.") from error
    try:
        check_names(options)
        for name in options:
            if name not in offered:
                raise OptionError(f"Option {name} cannot stand in a file. Pass it to kerasbn.rewrite in Python.")
        if options.get("norm") not in (None, *NORMS):
            raise OptionError(f"Option norm is {options['norm']!r}; in a file it must be one of {', '.join(NORMS)}.")
        checked({name: value for name, value in options.items() if name != "norm"})
    except OptionError as error:
        raise OptionError(f"Config {str(path)!r}: {error}") from error
    return options
