"""How often the scenes of a world contain a kind, and a kind has a colour.

Absent expressions must use each word as often as present ones: otherwise a rare word would reveal absence,
a common one presence. The frequencies need not be exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..shapes import COLOURS as OLDER_COLOURS
from ..shapes import KINDS as OLDER_KINDS
from .colours import COLOURS, OFTEN, USUAL, held_out, pairs
from .shapes import KINDS

#: How often scenes contain a word, in any unit.
Shares = Mapping[str, float]
#: Of training's things with a kind of the older world, the fraction that are in that world's scenes.
OLDER = 0.55
#: Of the shifted world's things, the fraction in colours held out of training.
SHIFTED_COLOURS = 0.7


@dataclass(frozen=True)
class Common:
    """The fraction of scenes that contain a kind, and by kind the fractions of its colours.

    Expressions never combine a kind with a colour that is not listed for it.
    """

    kinds: Shares
    colours: Mapping[str, Shares]


def _drawn(kind: str, shifted: bool) -> dict[str, float]:
    """The fractions of colours as `colours.colour_name` draws them."""
    options = pairs(kind, shifted)
    usual = [colour for colour in USUAL.get(kind, ()) if colour in options]
    often = OFTEN if usual else 0.0
    shares = {colour: (1 - often) / len(options) for colour in options}
    return shares | {colour: shares[colour] + often / len(usual) for colour in usual}


def _older(kind: str) -> dict[str, float]:
    """The fractions in the older world's scenes, with held-out colours replaced by the next allowed one."""
    names = list(OLDER_COLOURS)
    shares = dict.fromkeys(names, 0.0)
    for k in range(len(names)):
        after = (*names[k:], *names[:k])
        shares[next(name for name in after if not held_out(kind, name))] += 1 / len(names)
    return shares


def _mixed(one: Shares, other: Shares, share: float) -> dict[str, float]:
    """A mixture with weight `share` on the other and the rest on the first."""
    mixed = {c: (1 - share) * one.get(c, 0.0) + share * other.get(c, 0.0) for c in COLOURS}
    return {colour: value for colour, value in mixed.items() if value}


TRAINING = Common(
    {kind: 0.2 if kind in OLDER_KINDS else 0.1 for kind in KINDS},
    {
        kind: _mixed(_drawn(kind, False), _older(kind), OLDER)
        if kind in OLDER_KINDS
        else _drawn(kind, False)
        for kind in KINDS
    },
)
SHIFTED = Common(
    dict.fromkeys(KINDS, 0.15),
    {kind: _mixed(_drawn(kind, False), _drawn(kind, True), SHIFTED_COLOURS) for kind in KINDS},
)
