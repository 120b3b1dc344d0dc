"""Crops of photographs, and the objects of each: a training scene's image and instances.

Objects that are too small, cut off, or part of a crowd do not count as the crop's objects, and must not be
asked for. Colours are determined from the pixels within an object's outline, if most of them are clearly of
one colour; a box also contains what is around the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from ..chance import pick
from ..scenes import MAX_OBJECTS

Rgb = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]  # [K, H, W]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1
#: An object covers at least this fraction of the crop, and at least this fraction of it is visible.
LEAST, LEAST_OWN = 0.0012, 0.4
#: Minimum width of a part in its photograph: enlarging it further would show no more detail.
LEAST_WIDTH = 200
#: Minimum size of a part, as a fraction of the largest one.
LEAST_PART = 0.4
#: An object has a colour from this fraction of its pixels on; below the second, it certainly has not.
NAMED_FROM, NOT_BELOW = 0.6, 0.03
#: Hues (0 to 180, OpenCV's) of the colours that are unambiguous in photographs.
HUES = {
    "red": (172, 8),
    "orange": (9, 18),
    "yellow": (23, 34),
    "green": (42, 85),
    "blue": (98, 124),
}
#: All colours that pixels can have.
_NAMED = frozenset({*HUES, "white", "black"})


@dataclass(frozen=True)
class Labelled:
    """A photograph [H, W, 3], or a part of it, and its labelled objects.

    masks: of K objects, bool [K, H, W]. called: possible nouns of each, the best first ('' for an object
    without a name), empty for what is not an object. crowd: whether it is one of many under one mask.
    outlined: whether its mask is its outline; otherwise a box.
    """

    rgb: Rgb
    masks: Masks
    called: Sequence[Sequence[str]]
    crowd: Sequence[bool]
    outlined: Sequence[bool]

    @property
    def named(self) -> list[int]:
        """Indices of the objects with a noun."""
        return [k for k, of in enumerate(self.called) if of and of[0]]


@dataclass(frozen=True)
class CropThing:
    """An object of a crop.

    number: in the instances. noun: '' for none. others: other nouns it could be called. colour: '' if none
    is certain; colours: those that some of it may have. centroid: x and y in pixels.
    """

    number: int
    noun: str
    others: tuple[str, ...]
    colour: str
    colours: frozenset[str]
    centroid: tuple[float, float]


@dataclass(frozen=True)
class Crop:
    """rgb [height, width, 3], instances uint8 [height, width], its objects, and nouns not to ask for."""

    rgb: Rgb
    instances: Ids
    things: list[CropThing]
    doubtful: set[str]


def needed(shape: tuple[int, int], size: tuple[int, int]) -> float:
    """The scale to which a photograph can be reduced without any of its crops losing detail, up to 1.

    Args:
        shape: its height and width. size: width and height of a crop.
    """
    return min(1.0, max(size[0] / shape[1], size[1] / shape[0]) / LEAST_PART)


def whole(photograph: Labelled, size: tuple[int, int], kinds: Sequence[str]) -> Crop:
    """All of a photograph, with its border extended to the aspect ratio of `size` (width, height).

    Args:
        kinds: nouns whose objects have priority if there are too many.
    """
    height, width = photograph.rgb.shape[:2]
    wide = max(width, round(height * size[0] / size[1]))
    tall = max(height, round(width * size[1] / size[0]))
    left, top = (wide - width) // 2, (tall - height) // 2
    around = ((top, tall - height - top), (left, wide - width - left))
    rgb = np.pad(photograph.rgb, (*around, (0, 0)), "edge")
    masks = np.pad(photograph.masks, ((0, 0), *around))
    return _cropped(replace(photograph, rgb=rgb, masks=masks), (0, 0, wide, tall), size, kinds)


def closer(
    photograph: Labelled, size: tuple[int, int], kinds: Sequence[str], rng: np.random.Generator
) -> Crop:
    """A part of a photograph around a named object, mirrored with probability 0.5."""
    turn = -1 if rng.random() < 0.5 else 1
    rgb, masks = photograph.rgb[:, ::turn], photograph.masks[..., ::turn]
    turned = replace(photograph, rgb=rgb, masks=masks)
    return _cropped(turned, _part(turned, size, rng), size, kinds)


def _part(photograph: Labelled, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """The box of a random part with the aspect ratio of `size`."""
    height, width = photograph.rgb.shape[:2]
    aspect = size[0] / size[1]
    most = min(width, height * aspect)
    wide = rng.uniform(min(most, max(LEAST_WIDTH, LEAST_PART * most)), most)
    tall = wide / aspect
    x, y = _named_middle(photograph, rng)
    x, y = x + rng.uniform(-0.35, 0.35) * wide, y + rng.uniform(-0.35, 0.35) * tall
    x0 = int(np.clip(x - wide / 2, 0, width - wide))
    y0 = int(np.clip(y - tall / 2, 0, height - tall))
    return x0, y0, x0 + max(1, int(wide)), y0 + max(1, int(tall))


def _named_middle(photograph: Labelled, rng: np.random.Generator) -> tuple[float, float]:
    """The centroid of a random named object, or the middle of the photograph."""
    masks = photograph.masks
    named = [k for k in photograph.named if masks[k].any()]
    if not named:
        return masks.shape[2] / 2, masks.shape[1] / 2
    rows, columns = np.nonzero(masks[pick(named, rng)])
    return float(columns.mean()), float(rows.mean())


def _cropped(photograph: Labelled, box: Box, size: tuple[int, int], kinds: Sequence[str]) -> Crop:
    called, (x0, y0, x1, y1) = photograph.called, box
    way = cv2.INTER_AREA if x1 - x0 > size[0] else cv2.INTER_LINEAR
    rgb = np.asarray(cv2.resize(photograph.rgb[y0:y1, x0:x1], size, interpolation=way), np.uint8)
    fair, doubtful = _fair(photograph, box)
    # The scenes' kinds before other objects; then smaller objects are drawn over larger ones.
    fair.sort(key=lambda found: (called[found[1]][0] not in kinds, -found[0]))
    doubtful |= {name for _, k in fair[MAX_OBJECTS:] for name in called[k]}
    kept = [k for _, k in sorted(fair[:MAX_OBJECTS], reverse=True)]
    ids = np.zeros((size[1], size[0]), np.uint8)
    for number, k in enumerate(kept, start=1):
        part = photograph.masks[k, y0:y1, x0:x1].astype(np.uint8)
        ids[cv2.resize(part, size, interpolation=cv2.INTER_NEAREST) > 0] = number
    things = []
    for number, k in enumerate(kept, start=1):
        mask = ids == number
        if mask.sum() < LEAST * ids.size:  # hidden by the others
            doubtful |= set(called[k])
            ids[mask] = 0
        else:
            colours = _colours(rgb[mask]) if photograph.outlined[k] else ("", _NAMED)
            things.append(_crop_thing(number, called[k], colours, mask))
    return Crop(rgb, ids, things, doubtful - {""})


def _fair(photograph: Labelled, box: Box) -> tuple[list[tuple[int, int]], set[str]]:
    """Pixel count and index of each object that is well visible in a box, and the others' nouns."""
    x0, y0, x1, y1 = box
    fair: list[tuple[int, int]] = []
    doubtful: set[str] = set()
    for k, (mask, names) in enumerate(zip(photograph.masks, photograph.called, strict=True)):
        inside, own = int(mask[y0:y1, x0:x1].sum()), int(mask.sum())
        if not names or (own and not inside):
            continue
        # An empty mask belongs to an object at an unknown place.
        small = inside < LEAST * (y1 - y0) * (x1 - x0)
        if photograph.crowd[k] or small or inside < LEAST_OWN * own:
            doubtful |= set(names)
        else:
            fair.append((inside, k))
    return fair, doubtful


def _crop_thing(
    number: int,
    names: Sequence[str],
    colours: tuple[str, frozenset[str]],
    mask: npt.NDArray[np.bool_],
) -> CropThing:
    rows, columns = np.nonzero(mask)
    centroid = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
    return CropThing(number, names[0], tuple(names[1:]), *colours, centroid)


def _colours(pixels: npt.NDArray[np.uint8]) -> tuple[str, frozenset[str]]:
    """An object's colour ('' if none is certain), and those of some of its pixels [N, 3]."""
    shares = _colour_shares(pixels)
    colour = max(shares, key=lambda name: shares[name])
    some = frozenset(name for name, share in shares.items() if share >= NOT_BELOW)
    return colour if shares[colour] >= NAMED_FROM else "", some


def _colour_shares(pixels: npt.NDArray[np.uint8]) -> dict[str, float]:
    """The fraction of pixels [N, 3] with each unambiguous colour."""
    hue, saturation, value = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0].T.astype(int)
    strong = (saturation > 120) & (value > 70)
    found = {"white": (saturation < 40) & (value > 190), "black": value < 45}
    for name, (low, high) in HUES.items():
        within = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        found[name] = strong & within
    found["orange"] &= value > 170  # darker, it is brown
    return {name: float(which.mean()) for name, which in found.items()}
