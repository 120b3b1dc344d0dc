"""Colour names, their shades, and which kinds come in which colour."""

from __future__ import annotations

import numpy as np

from ...chance import pick
from .shapes import KINDS

Rgb = tuple[float, float, float]

#: Two extreme shades of each name (red, green, blue, 0 to 1); shades lie close to the line between them.
SHADES: dict[str, tuple[Rgb, Rgb]] = {
    "red": ((0.48, 0.03, 0.04), (0.92, 0.10, 0.10)),
    "green": ((0.04, 0.28, 0.08), (0.30, 0.78, 0.28)),
    "blue": ((0.04, 0.09, 0.40), (0.22, 0.50, 0.95)),
    "yellow": ((0.86, 0.68, 0.04), (1.00, 0.92, 0.30)),
    "orange": ((0.90, 0.36, 0.02), (1.00, 0.55, 0.10)),
    "purple": ((0.26, 0.06, 0.40), (0.58, 0.30, 0.80)),
    "white": ((0.86, 0.85, 0.82), (1.00, 1.00, 1.00)),
    "black": ((0.02, 0.02, 0.02), (0.09, 0.09, 0.10)),
    "brown": ((0.22, 0.11, 0.05), (0.46, 0.28, 0.14)),
    "pink": ((0.94, 0.42, 0.62), (1.00, 0.70, 0.80)),
    "grey": ((0.30, 0.30, 0.31), (0.56, 0.56, 0.56)),
}
COLOURS = tuple(SHADES)
#: Usual colours of a kind, drawn more often than the others.
USUAL: dict[str, tuple[str, ...]] = {
    "can": ("grey", "red", "green", "blue"),
    "pot": ("grey", "black", "red", "blue"),
    "pan": ("black", "grey", "red"),
    "spoon": ("grey", "brown", "white"),
    "wrench": ("grey", "black", "blue", "red"),
    "hammer": ("brown", "yellow", "black", "red"),
    "tape": ("brown", "grey", "white", "black"),
    "box": ("brown", "white"),
    "cone": ("orange", "red", "yellow"),
    "plate": ("white", "blue", "grey"),
    "bowl": ("white", "blue"),
    "vase": ("white", "brown", "blue"),
    "bottle": ("green", "brown", "white"),
}
OFTEN = 0.35  # probability of drawing from a kind's usual colours only


def held_out(kind: str, colour: str) -> bool:
    """Whether a pair of kind and colour is held out of training: one in eight."""
    if kind not in KINDS or colour not in COLOURS:
        return False
    return (5 * KINDS.index(kind) + 3 * COLOURS.index(colour)) % 8 == 0


def pairs(kind: str, shifted: bool) -> list[str]:
    """The colours of a kind that training uses or, if `shifted`, that are held out."""
    return [c for c in COLOURS if held_out(kind, c) == shifted]


def colour_name(kind: str, rng: np.random.Generator, shifted: bool) -> str:
    """Draw a colour for a thing of a kind; kind "": an unnamed thing."""
    options = pairs(kind, shifted and bool(kind)) or list(COLOURS)
    usual = [c for c in USUAL.get(kind, ()) if c in options]
    if usual and rng.random() < OFTEN:
        options = usual
    return pick(options, rng)


def shade(name: str, rng: np.random.Generator) -> Rgb:
    """Draw a shade of a colour name."""
    low, high = (np.array(end) for end in SHADES[name])
    mixed = low + rng.random() * (high - low)
    spread = 0.012 if name in ("white", "black", "grey") else 0.03
    r, g, b = np.clip(mixed + rng.uniform(-spread, spread, 3), 0.015, 1.0)
    return float(r), float(g), float(b)


def contrast(name: str, rng: np.random.Generator) -> Rgb:
    """Draw a shade of another colour, for bands and halves; black, white and grey more often."""
    others = [c for c in (*COLOURS, "white", "white", "white", "black", "grey") if c != name]
    return shade(pick(others, rng), rng)
