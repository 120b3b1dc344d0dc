"""What is drawn: an answered expression, its colour, the width of its lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..answer import Slot

Shape = tuple[int, int]  # height, width
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]

#: Distinct on most scenes and to most eyes (Okabe and Ito), RGB.
BRIGHT: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
#: The colours of slots, in turn: once these are used up, darker ones.
COLOURS = (*BRIGHT, *((r * 3 // 5, g * 3 // 5, b * 3 // 5) for r, g, b in BRIGHT))
DARK: Colour = (24, 24, 24)


@dataclass(frozen=True)
class Target:
    """One answered expression; `mask` is bool [H, W], or None if it was rejected.

    Raises:
        TypeError: the mask is not bool.
    """

    slot: int
    expression: str
    mask: Mask | None
    p_seg: float

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.dtype != np.bool_:
            raise TypeError(
                f"the mask of {self.expression!r} holds {self.mask.dtype}, not bool: give mask > 0"
            )

    @classmethod
    def of(cls, number: int, slot: Slot) -> Target:
        """The `number`-th slot (from 0) of an engine's answer; if it is rejected, without its mask."""
        return cls(number, slot.expression, None if slot.rejected else slot.mask, slot.p_seg)


def colour_of(slot: int) -> Colour:
    """The colour of a slot's outline and label, RGB."""
    return COLOURS[slot % len(COLOURS)]


def line_width(shape: Shape) -> int:
    return max(1, round(min(shape) / 240))
