"""Directive `command-options`: every option of the command, by subject, as `--help` has them."""

from itertools import groupby

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kerasbn.cli.main import command


class CommandOptions(SphinxDirective):
    """The options, from their declarations."""

    def run(self) -> list[nodes.Node]:
        """A section for each subject, with a definition list."""
        context = click.Context(command, info_name="kerasbn-rewrite")
        sections: list[nodes.Node] = []
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        for subject, group in groupby(options, key=lambda option: getattr(option, "subject", "Run")):
            section = nodes.section("", nodes.title(text=subject), ids=[f"options-{subject.lower()}"])
            rows = nodes.definition_list()
            for option in group:
                if record := option.get_help_record(context):
                    flags, text = record
                    term = nodes.term("", "", nodes.literal(text=flags), ids=[option.opts[0].lstrip("-")])
                    rows += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph(text=text)))
            section += rows
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.add_directive("command-options", CommandOptions)
    return {"parallel_read_safe": True}
