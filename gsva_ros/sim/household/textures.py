"""Procedural textures: table tops, walls, prints on things, and the grain of their surfaces.

All are uint8 [size, size, 3], except `print_`, which has a 4th channel, opacity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from ...chance import pick

Rng = np.random.Generator
Image = npt.NDArray[np.uint8]
Rgb = npt.NDArray[np.float64]


def _noise(
    rng: Rng, size: int, cells: tuple[int, int], octaves: int = 4
) -> npt.NDArray[np.float32]:
    """Noise at several scales, float32 [size, size] in 0..1; tiles almost seamlessly."""
    total = np.zeros((size, size), np.float32)
    for k in range(octaves):
        shape = (min(cells[0] << k, size), min(cells[1] << k, size))
        grid = rng.random(shape, np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * 0.5**k
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _mix(amount: npt.NDArray[np.floating], one: Rgb, two: Rgb) -> Image:
    """Interpolate from colour one (0) to colour two (1)."""
    a = np.clip(amount, 0, 1)[..., None]
    return (255 * np.clip(one * (1 - a) + two * a, 0, 1)).astype(np.uint8)


def _pair(rng: Rng, base: Rgb, contrast: float) -> tuple[Rgb, Rgb]:
    """The base colour and a similar one."""
    other = base * (1 + rng.choice([-1, 1]) * contrast) + rng.uniform(-0.3, 0.3, 3) * contrast * 0.3
    return base, np.clip(other, 0.02, 1.0)


def flat(rng: Rng, size: int, base: Rgb) -> Image:
    fine = _noise(rng, size, (32, 32), 3)
    return _mix(fine, *_pair(rng, base, 0.06))


def cloud(rng: Rng, size: int, base: Rgb) -> Image:
    return _mix(_noise(rng, size, (3, 3), 6), *_pair(rng, base, rng.uniform(0.15, 0.5)))


def wood(rng: Rng, size: int, base: Rgb) -> Image:
    long = _noise(rng, size, (3, 24), 4)
    waves = 0.5 + 0.5 * np.sin(
        rng.uniform(15, 60) * (_noise(rng, size, (2, 6), 2) + np.linspace(0, 1, size)[None])
    )
    return _mix(0.6 * long + 0.4 * waves, *_pair(rng, base, rng.uniform(0.2, 0.5)))


def planks(rng: Rng, size: int, base: Rgb) -> Image:
    image = wood(rng, size, base).astype(np.float32)
    edges = np.linspace(0, size, int(rng.integers(3, 8)) + 1).astype(int)
    for a, b in pairwise(edges):
        image[:, a:b] *= rng.uniform(0.75, 1.15)
        image[:, a : a + 2] *= 0.5
    return np.clip(image, 0, 255).astype(np.uint8)


def tiles(rng: Rng, size: int, base: Rgb) -> Image:
    image = cloud(rng, size, base).astype(np.float32)
    n = int(rng.integers(2, 7))
    edges = np.linspace(0, size, n + 1).astype(int)
    for a, b in pairwise(edges):
        for c, d in pairwise(edges):
            image[a:b, c:d] *= rng.uniform(0.88, 1.08)
    joint = rng.uniform(60, 220)
    w = int(rng.integers(2, 6))
    for a in edges[:-1]:
        image[a : a + w] = joint
        image[:, a : a + w] = joint
    return np.clip(image, 0, 255).astype(np.uint8)


def checker(rng: Rng, size: int, base: Rgb) -> Image:
    n = int(rng.integers(2, 12))
    k = np.arange(size) * 2 * n // size
    odd = ((k[:, None] + k[None]) % 2).astype(np.float32)
    return _mix(odd + 0.1 * _noise(rng, size, (16, 16)), *_pair(rng, base, rng.uniform(0.1, 0.8)))


def stripes(rng: Rng, size: int, base: Rgb) -> Image:
    n = int(rng.integers(2, 14))
    x = np.arange(size) / size
    wave = (np.sin(2 * math.pi * n * x) > rng.uniform(-0.7, 0.7)).astype(np.float32)
    lines = np.repeat(wave[None], size, 0)
    if rng.random() < 0.4:  # a plaid
        lines = 0.5 * lines + 0.5 * lines.T
    return _mix(lines + 0.1 * _noise(rng, size, (24, 24)), *_pair(rng, base, rng.uniform(0.2, 0.9)))


def cloth(rng: Rng, size: int, base: Rgb) -> Image:
    n = int(rng.integers(24, 64))
    k = np.sin(2 * math.pi * n * np.arange(size) / size)
    weave = 0.5 + 0.25 * (k[:, None] + k[None] * np.sign(k[:, None]))
    folds = _noise(rng, size, (2, 3), 3)
    return _mix(0.4 * weave + 0.6 * folds, *_pair(rng, base, rng.uniform(0.15, 0.4)))


def dots(rng: Rng, size: int, base: Rgb) -> Image:
    n = int(rng.integers(4, 12))
    x = (np.arange(size) * n / size) % 1 - 0.5
    hit = (x[:, None] ** 2 + x[None] ** 2 < rng.uniform(0.1, 0.35) ** 2).astype(np.float32)
    return _mix(hit, *_pair(rng, base, rng.uniform(0.3, 0.9)))


def marble(rng: Rng, size: int, base: Rgb) -> Image:
    veins = np.abs(_noise(rng, size, (3, 3), 6) - 0.5) * rng.uniform(6, 14)
    return _mix(1 - np.clip(veins, 0, 1) ** 0.5, *_pair(rng, base, rng.uniform(0.2, 0.6)))


def chips(rng: Rng, size: int, base: Rgb) -> Image:
    image = flat(rng, size, base)
    for _ in range(int(rng.integers(60, 250))):
        at, r = rng.uniform(0, size, 2), rng.uniform(1.5, 7)
        corners = at + r * rng.uniform(-1, 1, (5, 2))
        colour = np.clip(
            255 * (base + rng.uniform(-0.4, 0.4) + rng.uniform(-0.15, 0.15, 3)), 0, 255
        )
        cv2.fillConvexPoly(image, cv2.convexHull(corners.astype(np.int32)), colour.tolist())
    return image


def papers(rng: Rng, size: int, base: Rgb) -> Image:
    """Scattered sheets of paper with writing and coloured fields."""
    image = flat(rng, size, base)
    for _ in range(int(rng.integers(3, 12))):
        w, h = rng.uniform(0.12, 0.5, 2) * size
        corners = cv2.boxPoints(
            (
                (float(rng.uniform(0, size)), float(rng.uniform(0, size))),
                (float(w), float(h)),
                float(rng.uniform(0, 180)),
            )
        )
        paper = rng.uniform(180, 250, 3) if rng.random() < 0.7 else rng.uniform(20, 240, 3)
        cv2.fillConvexPoly(image, corners.astype(np.int32), paper.tolist())
        ink = (paper * rng.uniform(0.2, 0.7)).tolist()
        for f in np.arange(0.15, 0.85, 0.1):
            a = corners[0] + (corners[1] - corners[0]) * f + (corners[3] - corners[0]) * 0.1
            b = a + (corners[3] - corners[0]) * rng.uniform(0.3, 0.8)
            cv2.line(image, tuple(map(int, a)), tuple(map(int, b)), ink, 1)
    return image


def gradient(rng: Rng, size: int, base: Rgb) -> Image:
    x = np.linspace(0, 1, size)
    a = rng.uniform(0, 2 * math.pi)
    ramp = np.cos(a) * x[:, None] + np.sin(a) * x[None]
    return _mix((ramp - ramp.min()) / np.ptp(ramp), *_pair(rng, base, rng.uniform(0.2, 0.6)))


def shapes(rng: Rng, size: int, base: Rgb) -> Image:
    """Large coloured polygons and discs."""
    image = flat(rng, size, base)
    for _ in range(int(rng.integers(5, 25))):
        colour = rng.uniform(0, 255, 3).tolist()
        at = rng.uniform(0, size, 2)
        if rng.random() < 0.4:
            cv2.circle(
                image,
                tuple(map(int, at)),
                int(rng.uniform(5, 45)),
                colour,
                -1 if rng.random() < 0.7 else 3,
            )
        else:
            corners = at + rng.uniform(-60, 60, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(image, [corners.astype(np.int32)], colour)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 6)) if rng.random() < 0.5 else image


def blur_scene(rng: Rng, size: int, base: Rgb) -> Image:
    """A room out of focus: soft light and dark areas."""
    image = shapes(rng, size, base)
    for _ in range(6):
        a, b = rng.integers(0, size, (2, 2))
        cv2.rectangle(
            image, tuple(map(int, a)), tuple(map(int, b)), rng.uniform(0, 255, 3).tolist(), -1
        )
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(4, 14))


def bricks(rng: Rng, size: int, base: Rgb) -> Image:
    image = flat(rng, size, base).astype(np.float32)
    rows = int(rng.integers(4, 10))
    h = size // rows
    for r in range(rows):
        shift = (r % 2) * h
        for c in range(-1, size // (2 * h) + 1):
            x = c * 2 * h + shift
            image[r * h + 2 : (r + 1) * h, max(x + 2, 0) : max(x + 2 * h, 0)] *= rng.uniform(
                0.6, 1.0
            )
    return np.clip(image, 0, 255).astype(np.uint8)


def chevrons(rng: Rng, size: int, base: Rgb) -> Image:
    n, k = int(rng.integers(3, 9)), int(rng.integers(2, 6))
    x = np.abs((np.arange(size) * k / size) % 1 - 0.5) * 2
    y = np.arange(size) * n / size
    zig = ((y[:, None] + x[None]) % 1 < 0.5).astype(np.float32)
    return _mix(zig, *_pair(rng, base, rng.uniform(0.3, 0.9)))


def rings(rng: Rng, size: int, base: Rgb) -> Image:
    x = np.arange(size) - size / 2
    n = rng.uniform(4, 14)
    wave = np.sin(2 * math.pi * n * np.hypot(x[:, None], x[None]) / size)
    return _mix((wave > 0).astype(np.float32), *_pair(rng, base, rng.uniform(0.2, 0.8)))


Family = Callable[[Rng, int, Rgb], Image]
#: Textures of training's tables, floors and walls, and those that only the shifted world has.
TRAINED: tuple[Family, ...] = (
    flat, flat, cloud, wood, wood, planks, tiles, checker, stripes, cloth, cloth, dots, marble, chips,
    papers, gradient, shapes, blur_scene,
)  # fmt: skip
HELD: tuple[Family, ...] = (bricks, chevrons, rings)


def base_colour(rng: Rng, ground: bool) -> Rgb:
    """A colour for a table or a wall: white, grey, dark, wood, or cloth."""
    draw = rng.random()
    if draw < 0.30:
        return np.clip(rng.uniform(0.8, 1.0) + rng.uniform(-0.03, 0.03, 3), 0, 1)
    if draw < 0.45:
        return rng.uniform(0.3, 0.8) + rng.uniform(-0.04, 0.04, 3)
    if draw < 0.57:
        return rng.uniform(0.06, 0.25) + rng.uniform(-0.02, 0.02, 3)
    if draw < (0.82 if ground else 0.65):
        wooden = np.array([0.62, 0.43, 0.26]) * rng.uniform(0.45, 1.35)
        return np.clip(wooden + rng.uniform(-0.05, 0.05, 3), 0.03, 0.98)
    strong = rng.uniform(0.05, 0.9, 3)
    vivid = rng.uniform(0.2, 0.75)
    return vivid * strong + (1 - vivid) * strong.mean()


def surface(rng: Rng, size: int, shifted: bool, ground: bool) -> Image:
    """The texture of a table top, a floor or a wall."""
    family = pick(HELD if shifted else TRAINED, rng)
    return family(rng, size, base_colour(rng, ground))


_LETTERS = np.array(list("ABCDEFGHIKLMNOPRSTUVWXYZabcdefghiklmnoprstuvz0123456789%&!"))


def label(rng: Rng, size: int, shifted: bool) -> Image:
    """A label: a background with words, fields, bars and lines of small type."""
    white = rng.random() < 0.45
    ground = rng.uniform(205, 255, 3) if white else rng.uniform(0, 255, 3)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = ground
    if shifted:  # a diagonal field and a frame, which training's prints lack
        cv2.fillConvexPoly(
            image,
            np.array([(0, 0), (size, 0), (0, size)], np.int32),
            rng.uniform(0, 255, 3).tolist(),
        )
        cv2.rectangle(image, (3, 3), (size - 4, size - 4), rng.uniform(0, 255, 3).tolist(), 3)
    else:
        for _ in range(int(rng.integers(0, 4))):
            colour = rng.uniform(0, 255, 3).tolist()
            if rng.random() < 0.5:
                a = int(rng.uniform(0, size))
                cv2.rectangle(
                    image, (0, a), (size, a + int(rng.uniform(4, size * 0.3))), colour, -1
                )
            else:
                at = tuple(map(int, rng.uniform(0.2, 0.8, 2) * size))
                cv2.circle(image, at, int(rng.uniform(6, size * 0.28)), colour, -1)
    for _ in range(int(rng.integers(1, 4))):
        word = "".join(rng.choice(_LETTERS, int(rng.integers(2, 8))))
        at = (int(rng.uniform(0.0, 0.3) * size), int(rng.uniform(0.2, 0.95) * size))
        font = int(rng.integers(0, 8))
        scale = float(rng.uniform(0.4, 1.6)) * size / 96
        cv2.putText(
            image,
            word,
            at,
            font,
            scale,
            rng.uniform(0, 255, 3).tolist(),
            int(rng.integers(1, 4)),
            cv2.LINE_AA,
        )
    if rng.random() < 0.5:  # small type
        top = int(rng.uniform(0.5, 0.8) * size)
        for y in range(top, min(top + 24, size), 5):
            cv2.line(
                image,
                (8, y),
                (int(rng.uniform(0.4, 0.9) * size), y),
                rng.uniform(0, 120, 3).tolist(),
                1,
            )
    if rng.random() < 0.25:  # a bar code
        x, y = map(int, rng.uniform(0.5, 0.7, 2) * size)
        cv2.rectangle(image, (x, y), (x + 30, y + 18), (250, 250, 250), -1)
        for k in range(x + 2, x + 28, 2):
            if rng.random() < 0.6:
                cv2.line(image, (k, y + 2), (k, y + 15), (10, 10, 10), 1)
    return image


def brand(rng: Rng, size: int) -> Image:
    """The packaging of goods: bands, a name on a field, a picture of round things, small type."""
    image = np.empty((size, size, 3), np.uint8)
    image[:] = rng.uniform(200, 255, 3) if rng.random() < 0.4 else rng.uniform(0, 255, 3)
    for _ in range(int(rng.integers(0, 4))):  # bands around
        y, deep = int(rng.uniform(-0.1, 1) * size), int(rng.uniform(0.03, 0.4) * size)
        cv2.rectangle(image, (0, y), (size, y + deep), rng.uniform(0, 255, 3).tolist(), -1)
    for _ in range(int(rng.integers(0, 8))):  # what is in it
        at, r = tuple(map(int, rng.uniform(0, 1, 2) * size)), int(rng.uniform(0.04, 0.2) * size)
        colour = rng.uniform(30, 255, 3)
        axes = (r, max(1, int(r * rng.uniform(0.5, 1))))
        cv2.ellipse(image, at, axes, rng.uniform(0, 180), 0, 360, (0.6 * colour).tolist(), -1)
        lit = (at[0] - r // 5, at[1] - r // 5)
        cv2.ellipse(
            image, lit, (int(axes[0] * 0.75), int(axes[1] * 0.75)), 0, 0, 360, colour.tolist(), -1
        )
    for _ in range(int(rng.integers(1, 3))):  # a field with a name
        x, y = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.8)
        wide, high = rng.uniform(0.15, 0.42), rng.uniform(0.08, 0.25)
        low = (int((x - wide) * size), int((y - high) * size))
        top = (int((x + wide) * size), int((y + high) * size))
        ground = rng.uniform(0, 255, 3).tolist()
        if rng.random() < 0.5:
            cv2.ellipse(image, (int(x * size), int(y * size)),
                        (int(wide * size), int(high * size)), 0, 0, 360, ground, -1)  # fmt: skip
        else:
            cv2.rectangle(image, low, top, ground, -1)
        word = "".join(rng.choice(_LETTERS, int(rng.integers(3, 8))))
        scale = wide * size / (11 * len(word))
        cv2.putText(image, word, (low[0] + 4, int(y * size + 8 * scale)), int(rng.integers(0, 8)),
                    float(scale), rng.uniform(0, 255, 3).tolist(), int(rng.integers(1, 4)),
                    cv2.LINE_AA)  # fmt: skip
    ink = rng.uniform(0, 120, 3).tolist()
    left, first = int(rng.uniform(0, 0.6) * size), int(rng.uniform(0.4, 0.9) * size)
    for y in range(first, min(first + 28, size), 4):  # small type
        cv2.line(image, (left, y), (left + int(rng.uniform(0.1, 0.35) * size), y), ink, 1)
    copies = int(rng.integers(1, 3))  # once or twice around
    return np.ascontiguousarray(cv2.resize(np.tile(image, (1, copies, 1)), (size, size)))


def print_(rng: Rng, size: int) -> Image:
    """Marks all over a thing, uint8 [size, size, 4], transparent between them."""
    marks = np.zeros((size, size), np.uint8)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = colour = rng.uniform(0, 255, 3)
    for _ in range(60):
        if np.count_nonzero(marks) > 0.3 * marks.size:
            break
        if rng.random() < 0.3:
            colour = rng.uniform(0, 255, 3)
        one = np.zeros_like(marks)
        at = (int(rng.uniform(-0.1, 0.9) * size), int(rng.uniform(0, 1) * size))
        style = rng.integers(4)
        if style == 0:
            thick = -1 if rng.random() < 0.6 else 2
            cv2.circle(one, at, int(rng.uniform(0.02, 0.12) * size), 255, thick)
        elif style == 1:
            corners = np.array(at) + rng.uniform(-0.12, 0.12, (4, 2)) * size
            cv2.fillConvexPoly(one, cv2.convexHull(corners.astype(np.int32)), 255)
        elif style == 2:
            end = tuple(map(int, rng.uniform(0, size, 2)))
            cv2.line(one, at, end, 255, int(rng.integers(1, 5)))
        else:
            word = "".join(rng.choice(_LETTERS, int(rng.integers(2, 9))))
            font, scale = int(rng.integers(0, 8)), float(rng.uniform(0.3, 1.5)) * size / 96
            cv2.putText(one, word, at, font, scale, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
        image[one > 0] = colour
        marks = np.maximum(marks, one)
    return np.concatenate([image, marks[..., None]], -1)


def metal(rng: Rng, size: int) -> Image:
    """The reflection of a room in a polished surface: light above, dark below, a few windows."""
    height = np.linspace(0, 1, size)[:, None]
    turn = (height - rng.uniform(0.35, 0.65)) * rng.uniform(-14, 14)
    level = 0.55 + 0.35 * np.tanh(turn) + 0.25 * (_noise(rng, size, (3, 3), 2) - 0.5)
    for _ in range(int(rng.integers(1, 4))):
        a, b = rng.integers(0, size, 2)
        level[a : a + size // 6, b : b + size // 4] += rng.uniform(0.1, 0.4)
    level = np.clip(level, 0.25, 1).astype(np.float32)
    smooth = cv2.GaussianBlur(level, (0, 0), size / rng.uniform(14, 40))
    return np.repeat((255 * smooth).astype(np.uint8)[..., None], 3, -1)


def grain(rng: Rng, size: int) -> Image:
    """Lightness of a thing's surface, near white; its colour is multiplied by it."""
    style = int(rng.integers(5))
    if style == 0:
        a = _noise(rng, size, (2, 20), 4)
    elif style == 1:
        a = _noise(rng, size, (4, 4), 5)
    elif style == 2:
        a = (rng.random((size, size)) < 0.9).astype(np.float32)
        a = cv2.GaussianBlur(a, (0, 0), 0.7)
    elif style == 3:
        a = 0.5 + 0.5 * np.sin(np.arange(size) * rng.uniform(0.3, 1.2))[None].repeat(size, 0)
    else:
        n = rng.integers(3, 7)
        x = (np.arange(size) * n / size) % 1 - 0.5
        a = 1 - (x[:, None] ** 2 + x[None] ** 2 < 0.07).astype(np.float32)
    depth = rng.uniform(0.15, 0.5)
    return np.repeat((255 * (1 - depth * (1 - a)))[..., None], 3, -1).astype(np.uint8)
