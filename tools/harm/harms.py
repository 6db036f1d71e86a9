"""Everything that is done to good files."""

from __future__ import annotations

import random

from harm.archives import archives
from harm.code import code
from harm.configs import deep, sizes, types
from harm.good import KINDS
from harm.harm import Harm
from harm.hdf5 import hdf5
from harm.others import others
from harm.parts import missing, swapped
from harm.raw import flipped, garbled, suffixes, truncated
from harm.weights import not_finite


def every(seed: int = 0) -> list[Harm]:
    """All that there is, always the same for the same seed."""
    chance = random.Random(seed)
    makers = (truncated, flipped, garbled, suffixes, swapped, missing, not_finite, code, sizes, deep, types)
    found = [harm for kind in KINDS for maker in makers for harm in maker(kind, random.Random(chance.random()))]
    return found + [harm for kind in KINDS for maker in (hdf5, archives, others) for harm in maker(kind)]
