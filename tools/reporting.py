"""What the benchmarks share: tables for the terminal and for Markdown, and what they ran on."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import rich.table

import kerasbn


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for the terminal and for Markdown, with notes below."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: str = ""

    def rich(self) -> rich.table.Table:
        """The table for the terminal."""
        table = rich.table.Table(title=self.title, title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if index < 2 else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The table as Markdown."""
        rule = ["---" if index < 2 else "---:" for index in range(len(self.headings))]
        lines = [f"| {' | '.join(row)} |" for row in (self.headings, rule, *self.rows)]
        return "\n".join((f"## {self.title}", "", *lines, "", self.notes)).rstrip() + "\n"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and range: `"0.731 (0.709..0.769)"`."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}..{high})"


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def accelerators(backend: str) -> list[str]:
    """The GPUs that a backend sees, by name."""
    if backend == "jax":
        import jax

        return [each.device_kind for each in jax.devices() if each.platform == "gpu"]
    if backend == "torch":
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(each) for each in tf.config.list_physical_devices("GPU")]
    return [str(each.get("device_name", "an unknown GPU")) for each in details]


def commit() -> str:
    """The commit that kerasbn is imported from, with `-dirty` where files differ from it."""
    command = ["git", "-C", str(Path(kerasbn.__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "not from a git checkout"


def machine(backend: str = "tensorflow") -> str:
    """The machine and the versions, as Markdown."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    packages = ", ".join(f"{name} {version(name)}" for name in ("keras", backend, "numpy", "kerasbn"))
    lines = (
        *(accelerators(backend) or ["No GPU: all figures are of the CPU"]),
        f"{os.cpu_count()} cores of {cpu_model()}, {pages / 2**30:.0f} GiB; {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, {packages} ({commit()})",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; load average {os.getloadavg()[0]:.2f} at the start",
    )
    return "\n".join(f"- {line}" for line in lines)
