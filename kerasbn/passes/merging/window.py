"""Where a linear layer looks: at which places of its input, to yield one place of its output.

Along each axis of places, output p is made of the inputs at

    stride * p + first + dilation * k        k = 0 .. size - 1

and of zeros where there is no input. Dense looks at one place, as a convolution of size 1 does.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from kerasbn.reasons import Reason, Refusal

Places = tuple[int, ...]
"""A number for each axis of places."""


@dataclasses.dataclass(frozen=True)
class Window:
    """Where a layer looks.

    Attributes:
        sizes: How many places along each axis.
        strides: How far it moves from one output to the next.
        dilation: How far the places lie apart.
        first: The first place for output 0; negative where that is padding.
        lost: How many places the output would have fewer than the input, at stride 1.
    """

    sizes: Places
    strides: Places
    dilation: Places
    first: Places
    lost: Places

    @property
    def pads(self) -> bool:
        """Whether it looks at zeros beside the input."""
        spans = zip(self.sizes, self.dilation, self.lost, strict=True)
        return any(self.first) or any(lost < (size - 1) * dilation for size, dilation, lost in spans)

    @property
    def offsets(self) -> Iterator[Places]:
        """The places for output 0, in the order of the kernel."""
        axes = zip(self.first, self.dilation, self.sizes, strict=True)
        return itertools.product(*(range(first, first + step * size, step) for first, step, size in axes))

    def moved(self, by: Places, lost: Places) -> Window:
        """The same on what lies at other places, of another size."""
        first = tuple(map(sum, zip(self.first, by, strict=True)))
        return dataclasses.replace(self, first=first, lost=tuple(map(sum, zip(self.lost, lost, strict=True))))

    def index(self, offset: Places) -> int:
        """Which of its places this one is.

        Raises:
            Refusal: if it is none of them.
        """
        index = 0
        for place, first, step, size in zip(offset, self.first, self.dilation, self.sizes, strict=True):
            at, between = divmod(place - first, step)
            if between or not 0 <= at < size:
                raise Refusal(Reason.ALIGNMENT, "looks at places that the others leave out")
            index = index * size + at
        return index


def point(rank: int) -> Window:
    """The window of what looks at its own place alone, with this number of axes."""
    nowhere, once = (0,) * rank, (1,) * rank
    return Window(once, once, once, nowhere, nowhere)


def window_of(layer: Any, lengths: Sequence[int | None], sizes: Places | None = None) -> Window:
    """The window of a convolution, depthwise or not, or of Dense.

    Args:
        layer: The layer.
        lengths: How long the input is along each axis of places, `None` where that is open.
        sizes: The sizes to take for those of the kernel. Defaults to `None`: its own.

    Raises:
        Refusal: if it depends on an open length.
    """
    if not hasattr(layer, "kernel_size"):
        return point(len(lengths))
    sizes = tuple(layer.kernel_size) if sizes is None else sizes
    strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
    spans = [(size - 1) * step for size, step in zip(sizes, dilation, strict=True)]
    pads = [
        _pads(layer.padding, length, span, stride) for length, span, stride in zip(lengths, spans, strides, strict=True)
    ]
    lost = tuple(span - sum(pad) for span, pad in zip(spans, pads, strict=True))
    return Window(sizes, strides, dilation, tuple(-ahead for ahead, _ in pads), lost)


def _pads(padding: str, length: int | None, span: int, stride: int) -> tuple[int, int]:
    """How many zeros a convolution puts on either end of an axis."""
    if padding == "valid" or not span:
        return 0, 0
    if padding == "causal":
        return span, 0
    if stride == 1:
        total = span
    elif length is None:
        raise Refusal(Reason.ALIGNMENT, "where it looks depends on a size that is open")
    else:
        total = max(-(-length // stride) * stride - stride + span + 1 - length, 0)
    return total // 2, total - total // 2
