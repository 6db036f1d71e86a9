"""The documentation, made by Sphinx: `make docs`. Nothing in it needs a network, neither to make nor to read it."""

import importlib.metadata
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent / "_ext")]

project = "kerasbn"
author = "The kerasbn developers"
copyright = author  # noqa: A001
release = version = importlib.metadata.version("kerasbn")

extensions = [
    *("sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "sphinx_copybutton"),
    *("command_options", "keras_docstrings", "mathml", "meanings"),
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nitpicky = True
smartquotes = False  # options and quotes in running text are to be copied
# What is documented elsewhere, and the names that types have inside of the package.
nitpick_ignore_regex = [
    ("py:class", r"kerasbn\.(comparison|graph|options)\..*"),
    ("py:.*", r"(keras|numpy|os|pathlib|Path|typing|collections)\b.*"),
]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst-nb.lexer"]  # of what has no kernel, with TUTORIALS=off

# Run where they have changed; "off" makes the site in seconds, without their outputs.
nb_execution_mode = os.environ.get("TUTORIALS", "cache")
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True

# What TensorFlow says on standard error is no part of a page.
nb_output_stderr = "remove"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = [
    *("Weights", "Input shape", "Output shape"),
    ("Call arguments", "params_style"),
]
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "kerasbn"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
