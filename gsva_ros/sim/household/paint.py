"""Draws the paint of things: the colour's name, and each part's colour and finish."""

from __future__ import annotations

import numpy as np

from ...chance import pick
from .colours import Rgb, colour_name, contrast, held_out, shade
from .common import SHIFTED_COLOURS
from .scene import Paint, Placed, Rng
from .shapes import Shape
from .shelf import GRAINS, LABELS, METALS, PRINTS

FINISHES = {
    "matte": (0.05, 0.1),
    "satin": (0.3, 0.3),
    "gloss": (0.7, 0.6),
    "shiny": (1.0, 0.9),
}
_METALLIC = {"can", "pot", "pan", "spoon", "wrench", "bucket", "teapot"}
_SEE_THROUGH = {"glass": 0.75, "jar": 0.35, "bottle": 0.3, "vase": 0.15, "pitcher": 0.15}
_WOOD = (0.62, 0.43, 0.25)


def draw_paints(
    rng: Rng, shape: Shape, shifted: bool, things: list[Placed]
) -> tuple[str, tuple[Paint, ...]]:
    """Draw a thing's colour name ("" for none) and each part's paint."""
    kind = shape.kind
    name = colour_name(kind, rng, shifted and rng.random() < SHIFTED_COLOURS)
    if things and rng.random() < 0.2:  # repeated colours make the colour alone ambiguous
        other = pick(things, rng).colour
        if other and held_out(kind, other) <= shifted:
            name = other
    rgb = shade(name, rng)
    finish = ("matte", "satin", "gloss", "shiny")[int(rng.choice(4, p=[0.35, 0.3, 0.25, 0.1]))]
    if name == "grey" and kind in _METALLIC and rng.random() < 0.6:
        finish, rgb = f"metal{rng.integers(METALS)}", _tinted(rng, 0.62, 0.1)
    alpha = 1.0
    if rng.random() < _SEE_THROUGH.get(kind, 0.0):
        finish = "shiny"
        if name in ("white", "black", "grey") or rng.random() < 0.4:
            name, rgb, alpha = "", _tinted(rng, 0.85, 0.1), float(rng.uniform(0.2, 0.4))
        else:
            alpha = float(rng.uniform(0.45, 0.7))
    if alpha == 1.0 and rng.random() < 0.18:
        finish = f"grain{rng.integers(GRAINS)}"
    main = Paint((*rgb, alpha), finish, True)
    metal = Paint((*_tinted(rng, 0.7, 0.15), 1.0), f"metal{rng.integers(METALS)}", name == "grey")
    dark = Paint((*_tinted(rng, 0.08, 0.04), 1.0), "satin", name == "black")
    other = Paint((*contrast(name, rng), 1.0), finish if alpha == 1.0 else "gloss", False)
    pale = Paint((*_tinted(rng, 0.93, 0.05), alpha), "gloss", name == "white")
    wood = Paint((*(float(c * rng.uniform(0.8, 1.2)) for c in _WOOD), 1.0), "matte", False)
    inner = main if alpha < 1.0 else _weighted(rng, (main, 0.6), (pale, 0.3), (other, 0.1))
    handle = (
        _weighted(rng, (main, 0.3), (dark, 0.4), (wood, 0.15), (metal, 0.15))
        if kind in ("pot", "pan", "bucket")
        else _weighted(rng, (main, 0.72), (dark, 0.08), (wood, 0.08), (other, 0.12))
    )
    table = {
        "body": main,
        "inside": inner,
        "handle": handle,
        "lid": _weighted(rng, (main, 0.4), (other, 0.3), (metal, 0.15), (dark, 0.08), (pale, 0.07)),
        "stripe": other,
        "second": other,
        "metal": metal,
        "wood": wood,
        "dark": dark,
        "pages": Paint((*_tinted(rng, 0.88, 0.06), 1.0), "matte", name == "white"),
        "content": Paint((*_filling(rng), 1.0), "gloss", False),
        "core": _weighted(rng, (wood, 0.5), (pale, 0.3), (dark, 0.2)),
        "label": Paint((1.0, 1.0, 1.0, 1.0), f"label{rng.integers(LABELS)}", False),
        "print": Paint((*rgb, 1.0), f"print{rng.integers(PRINTS)}", True),
    }
    paints = (
        Paint((1.0, 1.0, 1.0, 1.0), part.picture, True) if part.picture else table[part.role]
        for part in shape.parts
    )
    return "" if any(part.picture for part in shape.parts) else name, tuple(paints)


def _tinted(rng: Rng, level: float, spread: float) -> Rgb:
    r, g, b = np.clip(level + rng.uniform(-spread, spread) + rng.uniform(-0.02, 0.02, 3), 0.01, 1.0)
    return float(r), float(g), float(b)


def _filling(rng: Rng) -> Rgb:
    fillings = (
        (0.2, 0.1, 0.05),
        (0.9, 0.88, 0.82),
        (0.85, 0.45, 0.08),
        (0.5, 0.05, 0.08),
        (0.45, 0.3, 0.1),
        (0.9, 0.8, 0.5),
    )
    return pick(fillings, rng)


def _weighted(rng: Rng, *options: tuple[Paint, float]) -> Paint:
    """Draw one of the options by their weights, which sum to 1."""
    ends = np.cumsum([weight for _, weight in options])
    return options[min(int(np.searchsorted(ends, rng.random())), len(options) - 1)][0]
