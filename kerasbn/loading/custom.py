"""Classes and functions that files name, from modules of the user's."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from kerasbn.errors import OptionError, quoted


def imported(modules: Iterable[str], names: Iterable[str]) -> dict[str, Any]:
    """What is called `MODULE:NAME`, by its name, once the modules are imported that register others.

    A name may be that of a dict of several. Modules are looked for in the working directory too.

    Raises:
        OptionError: if a module cannot be imported, or has no such name.
    """
    for module in modules:
        _module(module, f"--import {module}")
    found: dict[str, Any] = {}
    for name in names:
        option = f"--custom-objects {name}"
        module, colon, attribute = name.partition(":")
        if not colon or not attribute:
            raise OptionError(f"Option {option} is not of the form MODULE:NAME.")
        value = getattr(_module(module, option), attribute, None)
        if value is None:
            raise OptionError(f"Option {option}: the module has no {attribute!r}. Name a class, a function or a dict.")
        found.update(value if isinstance(value, Mapping) else {attribute: value})
    return found


def _module(name: str, option: str) -> ModuleType:
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        cause = "it calls sys.exit" if isinstance(error, SystemExit) else quoted(error)
        raise OptionError(
            f"Option {option}: the module {name!r} cannot be imported: {cause}. Run the command where it lies, "
            "or install it."
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
