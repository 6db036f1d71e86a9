"""Directive `meanings`: the members of an enum, what each means, and what to do about it.

```{meanings} kerasbn.Reason
output: What to do, said in the page. The meaning is the member's own.
```
"""

import importlib
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_REMEDY = re.compile(r"(\w+): +(.*)")


class Meanings(SphinxDirective):
    """The members that its content names, in that order."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """A definition list, each word a target to link to."""
        module, _, name = self.arguments[0].rpartition(".")
        enum = getattr(importlib.import_module(module), name)
        rows = nodes.definition_list(classes=["meanings"])
        for line in self.content:
            if not (match := _REMEDY.fullmatch(line)):
                raise self.error(f"Expected 'word: what to do', got {line!r}.")
            word, remedy = match.groups()
            meaning, _ = self.parse_inline(enum(word).meaning)
            advice, _ = self.parse_inline(remedy)
            term = nodes.term("", "", nodes.literal(text=word), ids=[f"{name.lower()}-{word.replace('_', '-')}"])
            body = nodes.definition("", nodes.paragraph("", "", *meaning), nodes.paragraph("", "", *advice))
            rows += nodes.definition_list_item("", term, body)
        return [rows]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.add_directive("meanings", Meanings)
    return {"parallel_read_safe": True}
