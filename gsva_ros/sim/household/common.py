"""How often the scenes of a world hold a kind, and a kind a colour.

Expressions of what is not there use words as often as those of what is: a word that scenes hold rarely
would give absence away, one that they hold often presence. The shares need not be exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..shapes import COLOURS as OLDER_COLOURS
from ..shapes import KINDS as OLDER_KINDS
from .colours import COLOURS, OFTEN, USUAL, held_out, pairs
from .shapes import KINDS

#: How often scenes hold a word, in any unit.
Shares = Mapping[str, float]
#: Of training's things of a kind of the older world, the share that stand in scenes of that world.
OLDER = 0.55
#: Of the shifted world's things, the share in colours that training never draws.
SHIFTED_COLOURS = 0.7


@dataclass(frozen=True)
class Common:
    """The share of scenes that hold a kind, and by kind the shares of its colours.

    A kind is never spoken of in a colour that it does not list.
    """

    kinds: Shares
    colours: Mapping[str, Shares]


def _drawn(kind: str, shifted: bool) -> dict[str, float]:
    """The shares of colours as `colours.colour_name` draws them."""
    options = pairs(kind, shifted)
    usual = [colour for colour in USUAL.get(kind, ()) if colour in options]
    often = OFTEN if usual else 0.0
    shares = {colour: (1 - often) / len(options) for colour in options}
    return shares | {colour: shares[colour] + often / len(usual) for colour in usual}


def _older(kind: str) -> dict[str, float]:
    """Those of the older world's scenes, whose colours give way to the next that training draws."""
    names = list(OLDER_COLOURS)
    shares = dict.fromkeys(names, 0.0)
    for k in range(len(names)):
        after = (*names[k:], *names[:k])
        shares[next(name for name in after if not held_out(kind, name))] += 1 / len(names)
    return shares


def _mixed(one: Shares, other: Shares, share: float) -> dict[str, float]:
    """`share` of the other, and the rest of the one."""
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
