"""Photographs with COCO's instance masks, or boxes, as scenes for gsva-mini: cropped, and spoken of.

A category is called by one of the scenes' kinds, or another noun (`Names`). What is too small, cut off, or
one of a crowd in a crop is no thing of it, and nobody asks for such things there. Colours are
read off the pixels, where most of a thing is plainly of one.

It does not know what learns from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from ..errors import InputError, one_line, validated
from ..phrasing.unknown import HELD_OUT
from ..phrasing.words import plural
from ..scenes import MAX_OBJECTS, Expression
from .files import DatasetError, read_json, read_picture
from .refer import segmentation_mask

Rgb = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1
#: A thing covers at least this share of the crop, and shows at least this share of itself.
LEAST, LEAST_OWN = 0.0012, 0.4
#: A crop is at least this wide in the photograph: enlarged further, it would show nothing more.
LEAST_WIDTH = 200
#: Things whose middles are nearer than this share of the width are not told apart as left and right.
APART = 0.04
#: Expressions of a crop, at most: half of them for what is not there.
MOST = 16
#: Kinds of the scenes are asked for so many times as often as other nouns.
OFTEN = 4.0
#: From this share of a thing's pixels its colour has its name; below the other, it surely has not.
NAMED_FROM, NOT_BELOW = 0.6, 0.03
#: Hues (0 to 180, OpenCV's) of the colours that a photograph tells for sure.
HUES = {
    "red": (172, 8),
    "orange": (9, 18),
    "yellow": (23, 34),
    "green": (42, 85),
    "blue": (98, 124),
}


class Names(BaseModel):
    """The YAML file that says what a data set's categories are here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: dict[str, list[str]] = Field(
        min_length=1,
        description="what each category is called: a kind of the scenes, another noun, or '' for a thing "
        "without a name; then what it could also pass for, which is not asked for where it stands. "
        "Categories that are left out are no things",
    )
    absent: list[str] = Field(
        [], description="further nouns, of which no picture of the data set shows anything"
    )


@dataclass(frozen=True)
class Seen:
    """A thing of a crop: its number in the instances, its noun ('' for none) and what it could pass for."""

    number: int
    noun: str
    others: tuple[str, ...]
    colour: str
    colours: frozenset[str]  # that some of its pixels have
    centroid: tuple[float, float]


def read_names(path: Path) -> Names:
    """The file of names.

    Raises:
        InputError: it cannot be read, or names what is kept for tests.
    """
    try:
        names = validated(Names, yaml.safe_load(path.read_text()), str(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as YAML: {one_line(error)}") from error
    said = {noun for of in names.names.values() for noun in of} | set(names.absent)
    kept = said & set(HELD_OUT)
    if kept:
        raise InputError(f"{path}: kept for tests of unknown words: {', '.join(sorted(kept))}")
    return names


def write_photographs(
    out: Path,
    annotations: Path,
    images: Path,
    names: Names,
    vocabulary: tuple[Sequence[str], Sequence[str]],
    size: tuple[int, int],
    crops: int,
    split: str,
) -> int:
    """Write crops of a data set's photographs into `out`, in the files of `gsva sim render`.

    Args:
        annotations: COCO's instances. images: the folder of its pictures.
        vocabulary: the kinds and the colours of the scenes. size: width and height of a crop.
        crops: of a photograph that shows something named, the first one all of it, its border drawn out
            to the shape of `size`; of another photograph there is that alone. split: as it is to be called.

    Returns:
        How many crops there are: one without anything to ask is left out.

    Raises:
        DatasetError: these are not COCO's annotations, or a picture cannot be read.
    """
    kinds, colours = vocabulary
    pictures = list(_pictures(annotations))
    shape = (len(pictures) * crops, size[1], size[0])
    out.mkdir(parents=True, exist_ok=True)
    rgb = np.lib.format.open_memmap(out / "rgb.npy", "w+", np.uint8, (*shape, 3))
    instances = np.lib.format.open_memmap(out / "instances.npy", "w+", np.uint8, shape)
    lines: list[str] = []
    for number, (info, found) in enumerate(tqdm(pictures, desc=out.name, mininterval=2.0)):
        photograph = read_picture(images / info["file_name"])
        masks = _masks(found, photograph.shape[:2])
        called = [names.names.get(a["category"], []) for a in found]
        crowd = [bool(a.get("iscrowd")) for a in found]
        outlined = all(a.get("segmentation") for a in found)
        for crop in range(crops if any(of and of[0] for of in called) else 1):
            rng = np.random.default_rng([number, crop])
            if crop:
                turn = -1 if rng.random() < 0.5 else 1  # every second one mirrored
                around, parts = photograph[:, ::turn], masks[..., ::turn]
                box = _closer(parts, called, size, rng)
            else:
                around, parts, box = _padded(photograph, masks, size)
            shown, ids, seen, doubtful = _cropped(around, parts, called, crowd, box, size, kinds)
            asked = _asked(seen, doubtful, names, kinds, APART * size[0], rng)
            if not asked:
                continue
            rgb[len(lines)], instances[len(lines)] = shown, ids
            line = _line(info, seen, asked, kinds) | {"outlined": outlined}
            lines.append(json.dumps(line))
    meta = {
        "world": "photographs",
        "split": split,
        "count": len(lines),
        "width": size[0],
        "height": size[1],
        "kinds": list(kinds),
        "colours": list(colours),
    }
    (out / "scenes.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (out / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    return len(lines)


def _pictures(annotations: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each picture's entry, and its annotations with their categories' names."""
    data = read_json(annotations)
    try:
        categories = {c["id"]: c["name"] for c in data["categories"]}
        by_image: dict[Any, list[dict[str, Any]]] = {}
        for entry in data["annotations"]:
            named = entry | {"category": categories[entry["category_id"]]}
            by_image.setdefault(entry["image_id"], []).append(named)
        infos = [(info, by_image.get(info["id"], [])) for info in data["images"]]
        for info, _ in infos:
            Path(info["file_name"])
    except (LookupError, TypeError, AttributeError) as error:
        raise DatasetError(f"{annotations}: not COCO's: {one_line(error)}") from error
    yield from infos


def _masks(found: Sequence[dict[str, Any]], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The annotations' masks, bool [K, H, W]."""
    masks = [
        segmentation_mask(a["segmentation"], *shape) if a.get("segmentation") else _box(a, shape)
        for a in found
    ]
    return np.stack(masks) if masks else np.zeros((0, *shape), bool)


def _box(annotation: dict[str, Any], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A box as a mask."""
    mask = np.zeros(shape, bool)
    try:
        x, y, width, height = (float(value) for value in annotation["bbox"])
        left, top = max(round(x), 0), max(round(y), 0)
        mask[top : max(round(y + height), 0), left : max(round(x + width), 0)] = True
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"neither a segmentation nor a box of four numbers: {one_line(error)}"
        ) from error
    return mask


def _padded(
    photograph: Rgb, masks: npt.NDArray[np.bool_], size: tuple[int, int]
) -> tuple[Rgb, npt.NDArray[np.bool_], Box]:
    """The whole photograph and its masks in the shape of `size`, its border drawn out, and their box."""
    height, width = photograph.shape[:2]
    wide = max(width, round(height * size[0] / size[1]))
    tall = max(height, round(width * size[1] / size[0]))
    left, top = (wide - width) // 2, (tall - height) // 2
    around = ((top, tall - height - top), (left, wide - width - left))
    moved = np.pad(masks, ((0, 0), *around))
    return np.pad(photograph, (*around, (0, 0)), "edge"), moved, (0, 0, wide, tall)


def _closer(
    masks: npt.NDArray[np.bool_],
    called: Sequence[Sequence[str]],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Box:
    """A part of a photograph, of the shape of `size`, with some of a named thing in it."""
    height, width = masks.shape[1:]
    aspect = size[0] / size[1]
    most = min(width, height * aspect)
    wide = rng.uniform(min(most, max(LEAST_WIDTH, 0.4 * most)), most)
    tall = wide / aspect
    named = [k for k, names in enumerate(called) if names and names[0] and masks[k].any()]
    x, y = width / 2, height / 2
    if named:
        rows, columns = np.nonzero(masks[named[int(rng.integers(len(named)))]])
        x = columns.mean() + rng.uniform(-0.35, 0.35) * wide
        y = rows.mean() + rng.uniform(-0.35, 0.35) * tall
    x0 = int(np.clip(x - wide / 2, 0, width - wide))
    y0 = int(np.clip(y - tall / 2, 0, height - tall))
    return x0, y0, x0 + int(wide), y0 + int(tall)


def _cropped(
    photograph: Rgb,
    masks: npt.NDArray[np.bool_],
    called: Sequence[Sequence[str]],
    crowd: Sequence[bool],
    box: Box,
    size: tuple[int, int],
    kinds: Sequence[str],
) -> tuple[Rgb, Ids, list[Seen], set[str]]:
    """The crop, its instances and things, and what nobody should ask for in it."""
    x0, y0, x1, y1 = box
    smaller = x1 - x0 > size[0]
    shown = cv2.resize(
        photograph[y0:y1, x0:x1],
        size,
        interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
    )
    fair, doubtful = [], set()
    for k, names in enumerate(called):
        whole, inside = masks[k].sum(), masks[k, y0:y1, x0:x1].sum()
        if not names or not inside:
            continue
        share = inside / ((y1 - y0) * (x1 - x0))
        if crowd[k] or share < LEAST or inside < LEAST_OWN * whole:
            doubtful |= set(names)
        else:
            fair.append((int(inside), k))
    # Kinds of the scenes before other things; then what is smaller lies over what is larger.
    fair.sort(key=lambda found: (called[found[1]][0] not in kinds, -found[0]))
    doubtful |= {name for _, k in fair[MAX_OBJECTS:] for name in called[k]}
    kept = [k for _, k in sorted(fair[:MAX_OBJECTS], reverse=True)]
    ids = np.zeros((size[1], size[0]), np.uint8)
    for number, k in enumerate(kept, start=1):
        part = masks[k, y0:y1, x0:x1].astype(np.uint8)
        ids[cv2.resize(part, size, interpolation=cv2.INTER_NEAREST) > 0] = number
    seen = []
    for number, k in enumerate(kept, start=1):
        mask = ids == number
        if mask.sum() < LEAST * ids.size:  # behind the others
            doubtful |= set(called[k])
            ids[mask] = 0
            continue
        seen.append(_seen(number, called[k], shown, mask))
    return shown, ids, seen, doubtful - {""}


def _seen(number: int, names: Sequence[str], shown: Rgb, mask: npt.NDArray[np.bool_]) -> Seen:
    rows, columns = np.nonzero(mask)
    shares = _colour_shares(shown[mask])
    colour = max(shares, key=lambda name: shares[name])
    return Seen(
        number,
        names[0],
        tuple(names[1:]),
        colour if shares[colour] >= NAMED_FROM else "",
        frozenset(name for name, share in shares.items() if share >= NOT_BELOW),
        (float(columns.mean()) + 0.5, float(rows.mean()) + 0.5),
    )


def _colour_shares(pixels: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Which share of pixels [N, 3] has each colour that can be told for sure."""
    hue, saturation, value = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0].T.astype(int)
    strong = (saturation > 120) & (value > 70)
    found = {"white": (saturation < 40) & (value > 190), "black": value < 45}
    for name, (low, high) in HUES.items():
        within = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        found[name] = strong & within
    found["orange"] &= value > 170  # darker, it is brown
    return {name: float(which.mean()) for name, which in found.items()}


def _asked(
    seen: Sequence[Seen],
    doubtful: set[str],
    names: Names,
    kinds: Sequence[str],
    apart: float,
    rng: np.random.Generator,
) -> list[Expression]:
    """What is asked about a crop: as many things that are there as things that are not, at most `MOST`."""
    unfair = doubtful | {other for thing in seen for other in thing.others}
    there: dict[str, list[Seen]] = {}
    for thing in seen:
        if thing.noun:
            there.setdefault(thing.noun, []).append(thing)
    fair = {noun: things for noun, things in there.items() if noun not in unfair}
    known = {of[0] for of in names.names.values() if of and of[0]} | set(names.absent)
    lacking = sorted(known - set(there) - unfair)
    present = [(noun, e) for noun, of in fair.items() for e in _present(noun, of, apart)]
    absent = [(noun, _absent(noun, rng)) for noun in lacking]
    absent += [(n, e) for n, of in fair.items() for e in _of_another_colour(n, of, rng)]
    half = min(len(present), len(absent), MOST // 2) or min(max(len(present), len(absent)), 3)
    return [*_drawn(present, half, kinds, rng), *_drawn(absent, half, kinds, rng)]


def _drawn(
    found: Sequence[tuple[str, Expression]],
    count: int,
    kinds: Sequence[str],
    rng: np.random.Generator,
) -> list[Expression]:
    """So many of the expressions; those of the scenes' kinds come up more often."""
    weights = np.array([OFTEN if noun in kinds else 1.0 for noun, _ in found])
    keys = rng.random(len(found)) ** (1.0 / weights)  # Efraimidis and Spirakis, 2006
    return [found[k][1] for k in np.argsort(-keys)[:count]]


def _present(noun: str, things: Sequence[Seen], apart: float) -> Iterator[Expression]:
    """Ways to speak of some of the things of a noun."""
    numbers = tuple(thing.number for thing in things)
    if len(things) == 1:
        yield Expression(f"the {noun}", "single", numbers)
        if things[0].colour:
            yield Expression(f"the {things[0].colour} {noun}", "single", numbers)
        return
    yield Expression(f"all {plural(noun)}", "multiple", numbers)
    yield Expression(f"the {plural(noun)}", "multiple", numbers)
    across = sorted(things, key=lambda thing: thing.centroid[0])
    for word, thing, beside in (("leftmost", *across[:2]), ("rightmost", *across[:-3:-1])):
        if abs(thing.centroid[0] - beside.centroid[0]) >= apart:
            yield Expression(f"the {word} {noun}", "relative", (thing.number,))
    for thing in things:
        clear = all(thing.colour not in other.colours for other in things if other is not thing)
        if thing.colour and clear:
            yield Expression(f"the {thing.colour} {noun}", "single", (thing.number,))


def _absent(noun: str, rng: np.random.Generator) -> Expression:
    form = str(rng.choice(["the {n}", "the {n}", "all {ns}", "the leftmost {n}"]))
    return Expression(form.format(n=noun, ns=plural(noun)), "absent_kind", ())


def _of_another_colour(
    noun: str, things: Sequence[Seen], rng: np.random.Generator
) -> Iterator[Expression]:
    """Colours that none of the things has, where all of theirs are known."""
    if all(thing.colour for thing in things):
        lacking = [c for c in HUES if all(c not in thing.colours for thing in things)]
        for colour in rng.permutation(lacking)[:2]:
            yield Expression(f"the {colour} {noun}", "absent_attribute", ())


def _line(
    info: dict[str, Any],
    seen: Sequence[Seen],
    asked: Sequence[Expression],
    kinds: Sequence[str],
) -> dict[str, Any]:
    return {
        "photograph": info["file_name"],
        "objects": [
            {
                "id": thing.number,
                "kind": thing.noun if thing.noun in kinds else "",
                "colour": thing.colour,
                "size": "",
                "centroid": [round(value, 2) for value in thing.centroid],
                "distance": 0.0,
            }
            for thing in seen
        ],
        "expressions": [
            {"text": e.text, "category": e.category, "targets": list(e.targets)} for e in asked
        ],
    }
