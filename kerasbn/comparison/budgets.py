"""How long candidates are trained: in steps each, or in time that all of them share.

Training is looked at when an eighth, a quarter and a half of it are done, and in the end. A budget in time is made
steps by how long those took so far, anew at each look, so that what candidates that went early leave over goes to those
that stay. All candidates take the same number of steps.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from kerasbn.errors import OptionError

RUNGS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""At which parts of the training candidates are looked at."""

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
        steps: The steps that each candidate may take; `None` if it is time that counts.
        seconds: The seconds that all of them may take together; `None` if it is steps.
    """

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, given: Any) -> Budget:
        """The budget that is asked for.

        Raises:
            OptionError: if it is no number of steps and no time.
        """
        if isinstance(given, int) and not isinstance(given, bool) and given >= len(RUNGS):
            return cls(steps=given)
        found = re.fullmatch(r"\s*(\d+\.?\d*)\s*([a-z]+)\s*", given) if isinstance(given, str) else None
        if found is None or found[2] not in _UNITS or not float(found[1]):
            raise OptionError(
                f"Option budget is {given!r}; it must be a number of steps for each candidate, {len(RUNGS)} or more, "
                f"or a time for all together: a number and one of {', '.join(_UNITS)}, such as '2 min'."
            )
        return cls(seconds=float(found[1]) * _UNITS[found[2]])


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast a candidate goes.

    Attributes:
        step: The seconds of a step of training.
        look: The seconds of an evaluation.
        arms: How many rates it is trained at up to each rung that is ahead.
    """

    step: float
    look: float
    arms: tuple[int, ...]


def steps_in(seconds: float, paces: Iterable[Pace], seeds: int, rung: int) -> int:
    """How many steps a whole training would have, by what is left of the time from a rung on.

    Args:
        seconds: The time that is left.
        paces: Those of the candidates that stay.
        seeds: The number of seeds.
        rung: How many rungs are done.
    """
    widths = [end - begin for begin, end in zip((0.0, *RUNGS), RUNGS, strict=False)][rung:]
    unit = looks = 0.0
    for pace in paces:
        unit += seeds * pace.step * sum(width * arms for width, arms in zip(widths, pace.arms, strict=True))
        looks += seeds * pace.look * sum(pace.arms)
    return int(max(seconds - looks, 0.0) / unit)
