"""Weights that are no numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harm.good import Kind, weights_of
from harm.harm import Harm


def not_finite(kind: Kind, chance: random.Random) -> Iterator[Harm]:
    for value in (np.nan, np.inf, -np.inf, 3e38):
        if kind.hdf5_name or kind.path == "model.keras":

            def do(folder: Path, value: float = value) -> None:
                with kind.opened_hdf5(folder) as file:
                    weights_of(file)[-1 if kind.hdf5_name else 0][...] = value

        elif kind.name.startswith("TensorFlow.js"):

            def do(folder: Path, value: float = value) -> None:
                content = np.frombuffer((folder / "1.bin").read_bytes(), "float32").copy()
                content[3] = value
                (folder / "1.bin").write_bytes(content.tobytes())

        else:
            continue
        yield Harm("weights that are no numbers", str(value), kind, do, may_change=True)
