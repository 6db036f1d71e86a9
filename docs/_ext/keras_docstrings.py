"""Docstrings in Keras's style, which is Markdown in Google's sections, for autodoc; and types by their public names."""

import inspect
import re
from typing import Any, get_args, get_type_hints

import keras
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import stringify_annotation

import kerasbn

_ROOMS = {f"kerasbn.{room}" for room in ("callbacks", "layers", "recipes")}
_PUBLIC = {f"kerasbn.{name}" for name in kerasbn.__all__} - _ROOMS
_DOORS = ("kerasbn", "kerasbn.layers", "kerasbn.callbacks")
_FENCE = re.compile(r"^( *)```(\w*)$")
_HEADING = re.compile(r"^(Example|Reference):$")  # what follows is not indented, as napoleon would have it


def _code(match: re.Match[str]) -> str:
    name, letter_behind = match.groups()
    return (f":py:obj:`{name}`" if name in _PUBLIC else f"``{name}``") + ("\\ " if letter_behind else "")


_INLINE = (
    (re.compile(r"(?<!`)`([^`]+)`(?!`)(?=(\w)?)"), _code),
    (re.compile(r"(?<!\w)\*(?=[\s,.;)])"), r"\*"),
    (re.compile(r"\[([^\]]+)\]\((http[^)]+)\)"), r"`\1 <\2>`__"),
    (re.compile(r"\bdocs/([\w/]+)\.md"), r":doc:`/\1`"),
)


def as_rst(lines: list[str]) -> list[str]:
    """Markdown's fences, code and links as reStructuredText has them."""
    result: list[str] = []
    fenced = returned = False
    for line in lines:
        if fence := _FENCE.match(line):
            fenced = not fenced
            indent, language = fence.groups()
            result += [f"{indent}.. code-block:: {language or 'text'}", ""] if fenced else [""]
        elif fenced:
            result.append(f"    {line}")
        elif heading := _HEADING.match(line):
            result.append(f".. rubric:: {heading[1]}")
        else:
            for pattern, replacement in _INLINE:
                line = pattern.sub(replacement, line)
            result.append(line.replace(": ", "; ", 1) if returned else line)  # napoleon: a type, and what it is
            returned = line in ("Returns:", "Yields:")
    return result


def translate(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make a docstring what the rest of autodoc reads."""
    lines[:] = as_rst(lines)


def add_option_types(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Say the types of options that a signature has as `**options: Unpack[Options]`."""
    if not inspect.isfunction(obj) or "options" not in inspect.signature(obj).parameters:
        return
    (unpacked,) = get_args(get_type_hints(obj)["options"])
    first = next((index for index, line in enumerate(lines) if line.startswith(":param")), len(lines))
    for option, annotation in get_type_hints(unpacked).items():
        if any(line.startswith(f":param {option}:") for line in lines):
            lines.insert(first, f":type {option}: {stringify_annotation(annotation, 'smart')}")


def own_signature(app: Sphinx, what: str, name: str, obj: Any, options: Any, *described: str) -> tuple[str, str] | None:
    """Say how a layer is made: Keras's `__new__`, which takes anything, hides it."""
    if not (inspect.isclass(obj) and issubclass(obj, keras.Operation)):
        return None
    _, *parameters = inspect.signature(obj.__init__).parameters.values()
    plain = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    return str(inspect.Signature(plain)), ""


def by_public_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Lead from the place where something is defined to where it is documented."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("kerasbn."):
        return None
    domain = env.domains.python_domain
    for door in _DOORS:
        public = f"{door}.{target.rpartition('.')[2]}"
        if public in domain.objects and public != target:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Come before napoleon, which has priority 500, and after it."""
    app.connect("autodoc-process-docstring", translate, priority=400)
    app.connect("autodoc-process-docstring", add_option_types, priority=600)
    app.connect("autodoc-process-signature", own_signature)
    app.connect("missing-reference", by_public_name)
    return {"parallel_read_safe": True}
