"""The long description; all else is in pyproject.toml.

It is the README without its local links and pictures: where the package is shown, they lead nowhere.
"""

import re
from pathlib import Path

from setuptools import setup

README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
PICTURE = r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n\n"
LINK = r"\[([^]]*)\]\((?!https?:)[^)]*\)"

setup(
    long_description=re.sub(LINK, r"\1", re.sub(PICTURE, "", README, flags=re.MULTILINE)),
    long_description_content_type="text/markdown",
)
