"""Which versions of Python, Keras, TensorFlow and the other dependencies part of the tests passed with.

    make test-versions                 # runs the tests, then this
    nox -s lowest -- tests/graph       # others, on the oldest of everything
    python tools/tested_versions.py    # what came of all runs

It reads what `nox` has left in its environments.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import platform
import re
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from reporting import Table, cpu_model

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "docs" / "support" / "tested_versions.md"
SESSIONS = ("versions-", "lowest")


@dataclasses.dataclass(frozen=True)
class Run:
    """The tests in one environment of nox's."""

    folder: Path

    @property
    def is_lowest(self) -> bool:
        """Whether it has the oldest of everything."""
        return self.folder.name == "lowest"

    @cached_property
    def installed(self) -> dict[str, str]:
        """The versions of all packages, by name."""
        (packages,) = self.folder.glob("lib/python3.*/site-packages")
        found = importlib.metadata.distributions(path=[str(packages)])
        return {each.name.lower().replace("_", "-"): each.version for each in found}

    @cached_property
    def python(self) -> str:
        """The version of Python."""
        config = (self.folder / "pyvenv.cfg").read_text()
        (version,) = re.findall(r"^version_info = (\S+)$", config, re.MULTILINE)
        return str(version)

    @cached_property
    def suite(self) -> ET.Element:
        """What pytest wrote of the tests."""
        return next(ET.parse(self.folder / "results.xml").iter("testsuite"))

    @property
    def day(self) -> str:
        """When they ran."""
        return self.suite.attrib["timestamp"][:10]

    @cached_property
    def outcomes(self) -> dict[str, tuple[int, int]]:
        """How many tests passed, and of how many, by file; those that were skipped aside."""
        counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
        for case in self.suite.iter("testcase"):
            kinds = {each.tag for each in case}
            if "skipped" not in kinds:
                counts[case.attrib["classname"]][1] += 1
                counts[case.attrib["classname"]][0] += not kinds & {"failure", "error"}
        return {name.removeprefix("tests.").replace(".", "/"): (good, all_) for name, (good, all_) in counts.items()}


def runs() -> list[Run]:
    found = (path.parent for path in (ROOT / ".nox").glob("*/results.xml"))
    ran = [Run(folder) for folder in found if folder.name.startswith(SESSIONS)]
    return sorted(
        ran, key=lambda run: (not run.is_lowest, run.python, run.installed["keras"], run.installed["tensorflow"])
    )


def outcomes(ran: Sequence[Run]) -> Table:
    files = sorted({name for run in ran for name in run.outcomes})
    rows = []
    for run in ran:
        counts = (run.outcomes.get(name) for name in files)
        shown = (
            "" if each is None else str(each[0]) if each[0] == each[1] else f"{each[0]} of {each[1]}" for each in counts
        )
        main = (run.python, run.installed["keras"], run.installed["tensorflow"])
        rows.append((*main, "oldest" if run.is_lowest else "newest", *shown))
    return Table(
        "Tests that passed",
        ("Python", "Keras", "TensorFlow", "all else", *(f"`{name}`" for name in files)),
        tuple(rows),
        "One number: all of them. What is skipped, as it needs something that is not there, is left out.",
    )


def bounds(ran: Sequence[Run]) -> Table:
    """Between which versions each dependency was."""
    rows = []
    for requirement in requirements():
        name = requirement.name.lower()
        seen = {Version(run.installed[name]) for run in ran if name in run.installed}
        if seen:
            rows.append((f"`{name}`", f"`{requirement.specifier}`", str(min(seen)), str(max(seen))))
    return Table(
        "Dependencies",
        ("package", "admitted", "oldest", "newest"),
        tuple(rows),
        "The oldest and the newest that were there when these tests ran.",
    )


def requirements() -> Iterator[Requirement]:
    """Of the package and of its extras, but for those of its developers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *(each for name in extras for each in extras[name])]:
        requirement = Requirement(text)
        if requirement.name != "kerasbn" and text not in (*extras["dev"], *extras["docs"], *extras["browser"]):
            yield requirement


def main() -> None:
    ran = runs()
    if not ran:
        raise SystemExit("There are no results. Make some: make test-versions")
    lines = (
        "# Versions, tested",
        f"`tools/tested_versions.py`. {(__doc__ or '').splitlines()[0]}",
        f"- {platform.system()} {platform.machine()}, {cpu_model()}\n- {', '.join(sorted({run.day for run in ran}))}",
        *(table.markdown() for table in (outcomes(ran), bounds(ran))),
    )
    REPORT.write_text("\n\n".join(line.strip() for line in lines) + "\n")
    print(REPORT.read_text())


if __name__ == "__main__":
    main()
