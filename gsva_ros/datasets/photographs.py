"""Photographs with COCO instance masks or boxes, as scenes for gsva-mini.

A category is named by one of the scenes' kinds or by another noun (`Names`). What a crop shows is decided
in `crops`, what is asked about it in `crop_questions`, and how it is learnt in the training layer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from ..errors import InputError, one_line, validated
from ..phrasing.unknown import HELD_OUT
from ..scenes import INSTANCES, LINES, META, RGB, Expression, begun, new_arrays
from ..settings import read_yaml
from .coco import read_coco, segmentation_mask
from .crop_questions import crop_expressions
from .crops import Crop, CropThing, Labelled, closer, needed, whole
from .files import DatasetError, annotated_as_shown, read_annotated, read_dataset_json

#: The world of these scenes in meta.json.
WORLD = "photographs"
#: Where a set is written, inside its own folder, so that an earlier one stays until it is finished.
PARTIAL = "partial"
#: How "iscrowd" says no, also as text.
NO_CROWD = ("0", "0.0", "false", "none", "")
#: Why annotations are reported that may not mean what they say.
TURNED = (
    "EXIF turns it, and nothing tells whether it was annotated like that: used as stored; if its masks are "
    "upside down, apply EXIF to the images"
)
UNLABELLED = "has no annotation: everything named counts as absent from it"
NO_PIXEL = "encloses no pixel: not asked for; are its coordinates in pixels?"
BEYOND = "its box extends beyond the image: is it x, y, width, height?"
#: A box is reported from this multiple of its image's size on.
BEYOND_FROM = 1.05


class Names(BaseModel):
    """The YAML file with the nouns for a data set's categories."""

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

    @property
    def known(self) -> set[str]:
        """Nouns that are labelled wherever they occur, or that no image shows."""
        return {of[0] for of in self.names.values() if of and of[0]} | set(self.absent)


@dataclass(frozen=True)
class Photographs:
    """A data set: COCO's annotations, the folder of its images, and its names."""

    annotations: Path
    images: Path
    names: Names


def read_names(path: Path) -> Names:
    """Read the file of names.

    Raises:
        InputError: it cannot be read, or contains nouns that are reserved for tests.
    """
    names = validated(Names, read_yaml(path), str(path))
    said = {noun for of in names.names.values() for noun in of} | set(names.absent)
    kept = said & set(HELD_OUT)
    if kept:
        raise InputError(f"{path}: reserved for tests of unknown words: {', '.join(sorted(kept))}")
    return names


def write_photographs(
    out: Path,
    photographs: Photographs,
    vocabulary: tuple[Sequence[str], Sequence[str]],
    size: tuple[int, int],
    crops: int,
    split: str,
) -> tuple[int, list[str], list[str]]:
    """Write crops of photographs into `out`, in the file format of `gsva sim render`.

    Args:
        vocabulary: the kinds and the colours of the scenes. size: width and height of a crop.
        crops: per photograph with a named object: all of it (`whole`), and parts (`closer`); of other
            photographs, only the whole. split: the name of the split.

    Returns:
        The number of crops, without those about which nothing can be asked; the named categories that the
        annotations do not define, whose nouns count as absent everywhere; and what else may be wrong with
        the annotations, one line each.

    Raises:
        DatasetError: not COCO's annotations, an unreadable image, nothing to ask, or `out` contains scenes
            of another kind.
    """
    _check_free(out)
    (kinds, colours), known = vocabulary, photographs.names.known
    categories, pictures = read_coco(photographs.annotations)
    _check_images(photographs, [info["file_name"] for info, _ in pictures])
    shown, unclear = annotated_as_shown(
        (photographs.images / info["file_name"], (info["height"], info["width"]))
        for info, _ in pictures
    )
    doubts = {TURNED: [path.name for path in unclear], UNLABELLED: [], NO_PIXEL: [], BEYOND: []}
    fresh = out / PARTIAL
    with begun(fresh):
        rgb, instances = new_arrays(fresh, len(pictures) * crops, size[1], size[0])
        lines: list[str] = []
        for number, (info, found) in enumerate(tqdm(pictures, desc=out.name, mininterval=2.0)):
            labelled = _labelled(photographs, info, found, shown, size)
            for why, where in _doubts(info, found, labelled.masks):
                doubts[why].append(where)
            for turn in range(crops if labelled.named else 1):
                rng = np.random.default_rng([number, turn])
                crop = closer(labelled, size, kinds, rng) if turn else whole(labelled, size, kinds)
                expressions = crop_expressions(crop, known, kinds, rng)
                if expressions:
                    rgb[len(lines)], instances[len(lines)] = crop.rgb, crop.instances
                    line = _line(info, crop, expressions, kinds)
                    lines.append(json.dumps(line | {"outlined": all(labelled.outlined)}))
        if not lines:
            raise DatasetError(f"{photographs.annotations}: nothing can be asked about its images")
        meta = {
            "world": WORLD,
            "split": split,
            "count": len(lines),
            "width": size[0],
            "height": size[1],
            "kinds": list(kinds),
            "colours": list(colours),
        }
        (fresh / LINES).write_text("".join(f"{line}\n" for line in lines))
        (fresh / META).write_text(json.dumps(meta, indent=2) + "\n")
        _replace(out, fresh)
        told = [f"{of[0]} (and {len(of) - 1} more): {why}" for why, of in doubts.items() if of]
        return len(lines), sorted(photographs.names.names.keys() - set(categories)), told


def _replace(out: Path, fresh: Path) -> None:
    """Put a finished set into the place of an earlier one."""
    # Removed first and put last, so that a mixture of both is not valid.
    (out / META).unlink(missing_ok=True)
    for name in (RGB, INSTANCES, LINES, META):
        (fresh / name).replace(out / name)
    fresh.rmdir()


def _check_free(out: Path) -> None:
    """Check that no other scenes would be overwritten; those of an earlier run may be."""
    meta = out / META
    if not meta.exists():
        return
    told = read_dataset_json(meta)
    if not isinstance(told, dict) or told.get("world") != WORLD:
        raise DatasetError(f"{out} contains other scenes: choose another folder")


def _check_images(photographs: Photographs, names: Sequence[str]) -> None:
    """Check that all images are there, and that none is listed twice, with a part of its objects each."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DatasetError(
            f"{photographs.annotations}: several images have the file_name {twice[0]!r}: put their "
            "annotations under one"
        )
    missing = [name for name in names if not (photographs.images / name).is_file()]
    if not missing:
        return
    said = f"{photographs.images / missing[0]}: missing; {photographs.annotations} names it"
    if len(missing) > 1:
        said += f" ({len(missing)} of {len(names)} images are missing)"
    # Folders, also of another system; names as in an address; endings as a camera writes them.
    bare = PureWindowsPath(unquote(missing[0])).name.casefold()
    near = [path.name for path in photographs.images.glob("*") if path.name.casefold() == bare]
    if near:
        said += f"; the folder contains {near[0]}: give each file_name as its file is named"
    raise DatasetError(said)


def _labelled(
    photographs: Photographs,
    info: dict[str, Any],
    found: Sequence[dict[str, Any]],
    shown: bool,
    size: tuple[int, int],
) -> Labelled:
    """A photograph in the resolution that crops of this size (width, height) need."""
    path, shape = photographs.images / info["file_name"], (info["height"], info["width"])
    rgb = read_annotated(path, shape, str(photographs.annotations), shown)
    called = [photographs.names.names.get(a["category"], []) for a in found]
    crowd = [str(a.get("iscrowd")).lower() not in NO_CROWD for a in found]
    scale = needed(shape, size)
    small = (round(shape[0] * scale), round(shape[1] * scale))
    if small != shape:
        rgb = np.asarray(cv2.resize(rgb, small[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    try:
        masks = _masks(found, shape, small)
    except DatasetError as error:
        raise DatasetError(f"{photographs.annotations}: {info['file_name']}: {error}") from error
    return Labelled(rgb, masks, called, crowd, [bool(_outline(a)) for a in found])


def _doubts(
    info: dict[str, Any], found: Sequence[dict[str, Any]], masks: npt.NDArray[np.bool_]
) -> Iterator[tuple[str, str]]:
    """What may be wrong with an image's annotations, and where."""
    if not found:
        yield UNLABELLED, info["file_name"]
    for annotation, mask in zip(found, masks, strict=True):
        where = f"{info['file_name']}: annotation {annotation.get('id')}"
        if not mask.any():
            yield NO_PIXEL, where
        elif not _outline(annotation):
            x, y, width, height = (float(value) for value in annotation["bbox"])
            if max((x + width) / info["width"], (y + height) / info["height"]) > BEYOND_FROM:
                yield BEYOND, where


def _masks(
    found: Sequence[dict[str, Any]], shape: tuple[int, int], small: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """The annotations' masks, reduced to `small` one by one: bool [K, *small]."""
    masks = np.zeros((len(found), *small), bool)
    for mask, a in zip(masks, found, strict=True):
        try:
            given = _outline(a)
            full = segmentation_mask(given, *shape) if given else _box(a, shape)
        except DatasetError as error:
            raise DatasetError(f"annotation {a.get('id')}: {error}") from error
        mask[:] = _reduced(full, small) if small != shape else full
    return masks


def _reduced(mask: npt.NDArray[np.bool_], small: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A mask at a lower resolution; not empty unless it was."""
    share = cv2.resize(mask.astype(np.float32), small[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(share > min(0.5, share.max() / 2), bool)


def _outline(annotation: dict[str, Any]) -> Any:
    """The segmentation; None if there is none: boxes may have [] or [[]] in its place."""
    given = annotation.get("segmentation")
    return None if isinstance(given, list) and not any(given) else given or None


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


def _line(
    info: dict[str, Any], crop: Crop, asked: Sequence[Expression], kinds: Sequence[str]
) -> dict[str, Any]:
    return {
        "photograph": info["file_name"],
        "objects": [_object(thing, kinds) for thing in crop.things],
        "expressions": [asdict(expression) for expression in asked],
    }


def _object(thing: CropThing, kinds: Sequence[str]) -> dict[str, Any]:
    return {
        "id": thing.number,
        "kind": thing.noun if thing.noun in kinds else "",
        "colour": thing.colour,
        "size": "",
        "centroid": [round(value, 2) for value in thing.centroid],
        "distance": 0.0,
    }
