"""Contrast of the colours that a page defines as CSS variables (WCAG 2.2, 1.4.3)."""

from __future__ import annotations

import re


def luminance(colour: str) -> float:
    """Relative luminance of #rgb, #rrggbb or rgb(r, g, b), 0 to 1."""
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    if colour.startswith("rgb"):
        digits = bytes(map(int, re.findall(r"\d+", colour)[:3])).hex()
    parts = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    linear = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrasts(page: str, names: tuple[str, ...]) -> dict[str, list[float]]:
    """Contrast of the variables with --paper in a page's HTML: in light and in dark, 1 to 21."""
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w+)", block))
        for block in re.findall(r":root \{(.*?)\}", page, re.S)
    )
    found = {}
    for name in names:
        pairs = [sorted(map(luminance, (c[name], c["paper"]))) for c in (light, light | dark)]
        found[name] = [(high + 0.05) / (low + 0.05) for low, high in pairs]
    return found
