"""A curve as a drawing: what is drawn where. Rates are on a logarithmic axis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from kerasbn.pages.content import Curve

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 16.0, 28.0, 48.0
_STEPS = (1, 2, 2.5, 5, 10)
_MOST_TICKS = 6


@dataclasses.dataclass(frozen=True)
class Tick:
    """A value on an axis, and where it stands."""

    place: float
    label: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """A curve, drawn.

    Attributes:
        losses: The losses, as data of an SVG path.
        trend: Their trend, likewise.
        suggestion: Where the suggestion stands.
        x: The ticks below.
        y: The ticks at the side.
        left: Where the plot begins.
        right: Where it ends.
        top: Its upper edge.
        bottom: Its lower edge.
    """

    losses: str
    trend: str
    suggestion: float
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


def chart_of(curve: Curve) -> Chart:
    """Draw a curve; losses far above that of the beginning, where it diverges, are outside of the plot."""
    low = min(curve.losses)
    high = max(1.1 * max(curve.trend[0], low), low + 1e-12)
    low -= 0.05 * (high - low)
    first, last = (math.log10(rate) for rate in (curve.rates[0], curve.rates[-1]))

    def x(rate: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (math.log10(rate) - first) / (last - first), 1)

    def y(loss: float) -> float:
        near = min(loss, high + 10 * (high - low))  # what is drawn further off is drawn wrong
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - near) / (high - low), 1)

    decades = range(math.ceil(first), math.floor(last) + 1)
    every = max(1, len(decades) // _MOST_TICKS)
    return Chart(
        losses=_path(curve.rates, curve.losses, x, y),
        trend=_path(curve.rates, curve.trend, x, y),
        suggestion=x(curve.suggestion),
        x=tuple(Tick(x(10.0**decade), f"1e{decade}") for decade in decades[::every]),
        y=tuple(Tick(y(value), f"{value:.4g}") for value in _round_values(low, high)),
    )


def _path(
    rates: Sequence[float], losses: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    points = (f"{x(rate):g} {y(loss):g}" for rate, loss in zip(rates, losses, strict=True))
    return f"M{'L'.join(points)}"


def _round_values(low: float, high: float) -> list[float]:
    """A few round values between two."""
    unit = 10.0 ** math.floor(math.log10((high - low) / _MOST_TICKS))
    step = next(unit * each for each in _STEPS if (high - low) / (unit * each) <= _MOST_TICKS)
    return [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]
