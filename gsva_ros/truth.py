"""Ground truth of recorded frames as COCO-style JSON, in a file or in a bag's messages.

`images` has one entry per frame (id, width, height, topic, stamp in nanoseconds), `annotations` one per
expression (image_id, caption, category, referents, and the mask as run lengths or polygons; no mask if
nothing is meant). Source: the COCO data format, with the additional fields `stamp`, `topic`, `caption` and
`referents`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from . import MAX_PIXELS
from .coco_masks import MaskError, coco_mask, run_lengths_mask
from .errors import InputError, one_line, validated
from .files import parse_json, write_whole
from .instructions import meant_by

Mask = NDArray[np.bool_]
Polygon = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=6)]


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid text: {error.reason}") from error
    return text


#: JSON can contain lone surrogates, which nothing else can encode.
Text = Annotated[str, AfterValidator(_encodable)]


class TruthError(InputError):
    """A truth file cannot be used; the message says which, where and why."""


@dataclass(frozen=True)
class Referring:
    """One expression about a frame, and its ground truth.

    Attributes:
        expression: its text.
        category: scores are also reported per category.
        referents: number of objects in the frame that are meant; 0: none; None: unknown.
        mask: bool [H, W], the union of all of them; None if `referents` is None.
        ignore: bool [H, W], pixels that are excluded from scoring; None: no pixel.
        box: the annotated box of the only object that is meant, (x, y, width, height) in pixels.
        region: "phrase" or "sentence" if one region is asked for, as in ReasonSeg; "": an
            expression.
    """

    expression: str
    category: str = ""
    referents: int | None = None
    mask: Mask | None = None
    ignore: Mask | None = None
    box: tuple[float, float, float, float] | None = None
    region: str = ""


class _Lenient(BaseModel):
    """Strictly typed fields; additional ones, as other tools write them, are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class RunLengths(_Lenient):
    """COCO's run lengths: size (height, width), and counts, compressed (text) or not."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[Annotated[int, Field(ge=0)]], Tag("numbers")],
        Discriminator(lambda given: "numbers" if isinstance(given, list) else "text"),
    ]


#: One of two forms; the discriminators make errors be about the one that is given.
Segmentation = Annotated[
    Annotated[RunLengths, Tag("run lengths")] | Annotated[list[Polygon], Tag("polygons")],
    Discriminator(lambda given: "polygons" if isinstance(given, list) else "run lengths"),
]


class Annotation(_Lenient):
    """One expression; see the module."""

    image_id: int
    caption: Text
    category: Text
    referents: Annotated[int, Field(ge=0)]
    segmentation: Segmentation | None = None


class Frame(_Lenient):
    """One frame's entry in `images`."""

    id: int
    topic: Text
    stamp: int
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class TruthFile(_Lenient):
    """The whole file, or one message."""

    images: list[Frame]
    annotations: list[Annotation]


@dataclass(frozen=True)
class FrameTruth:
    """One frame's expressions, still encoded; `expressions` decodes the masks."""

    topic: str
    stamp: int
    size: tuple[int, int]  # height, width
    annotations: list[Annotation]

    def expressions(self) -> list[Referring]:
        """Decode this frame's masks, each bool [H, W]; they were validated when the file was read."""
        return [
            Referring(a.caption, a.category, a.referents, _decoded(a, self.size))
            for a in self.annotations
        ]

    def to_json(self) -> str:
        """This frame alone, in the file's format."""
        height, width = self.size
        image = Frame(id=1, topic=self.topic, stamp=self.stamp, width=width, height=height)
        annotations = [a.model_copy(update={"image_id": 1}) for a in self.annotations]
        return TruthFile(images=[image], annotations=annotations).model_dump_json(exclude_none=True)


def of_camera(
    truth: Sequence[FrameTruth], topic: str | None, cameras: Collection[str]
) -> list[FrameTruth]:
    """The truth of one camera's frames: what names its topic or, if none does, another name of it.

    Args:
        topic: the camera's; None: the truth as it is. cameras: the bag's image topics, see `meant_by`.

    Raises:
        TruthError: all of it names other topics: more than one, or another of the cameras.
    """
    named = {frame.topic for frame in truth}
    if not topic or not named:
        return list(truth)
    name = meant_by(topic, named, cameras)
    if name is None:
        others = ", ".join(sorted(named))
        raise TruthError(
            f"no truth of {topic}, but of {others}: give one of these, or the truth of {topic}"
        )
    return [replace(frame, topic=topic) for frame in truth if frame.topic == name]


def write_truth(path: Path, topic: str, frames: Iterable[tuple[int, list[Referring]]]) -> None:
    """Write the truth of frames, each with its header's stamp in nanoseconds; all or, on an error, nothing.

    Raises:
        TruthError: a frame has no mask, so that its size is unknown, or masks of several sizes; an
            expression's referents are unknown, or it has some but no mask, or none but a mask; or
            `read_truth` would refuse the file: two frames have one stamp, a frame's expression is empty or
            has two truths, or the number of its referents is negative.
        TypeError: a stamp, or a number of referents, is not an integer.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for stamp, expressions in frames:
        where = f"{path}: {topic} at {stamp} ns"
        sizes = {each.mask.shape for each in expressions if each.mask is not None}
        if len(sizes) != 1:
            found = "several sizes" if sizes else "no size, for no expression of it has a mask"
            raise TruthError(f"{where}: the frame has {found}; give masks of the frame's size")
        ((height, width),) = sizes
        image = {"id": len(images) + 1, "topic": topic, "stamp": index(stamp)}
        images.append(image | {"width": width, "height": height})
        for each in expressions:
            if each.referents is None:
                raise TruthError(
                    f"{where}: {each.expression!r}: its truth is not known (no referents): leave it out"
                )
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "caption": each.expression,
                "category": each.category,
                "referents": index(each.referents),
            }
            mask = each.mask if each.mask is not None and each.mask.any() else None
            if bool(each.referents) == (mask is None):
                found = "no mask" if mask is None else "a mask with pixels"
                raise TruthError(
                    f"{where}: {each.expression!r}: {each.referents} referents and {found}"
                )
            if mask is not None:
                annotation |= coco_mask(mask)
            annotations.append(annotation)
    lines = (",\n".join(json.dumps(entry) for entry in part) for part in (images, annotations))
    text = '{{"images": [\n{}\n],\n"annotations": [\n{}\n]}}\n'.format(*lines)
    parse_truth(text, str(path))
    write_whole(path, text.encode())


def read_truth(path: Path) -> list[FrameTruth]:
    """Read a truth file.

    Raises:
        TruthError: it is not a truth file; names the file and the entry.
    """
    try:
        data = path.read_bytes()
        text = data.decode(json.detect_encoding(data))
    except (OSError, UnicodeDecodeError) as error:
        raise TruthError(f"{path}: cannot be read as text: {one_line(error)}") from error
    return parse_truth(text, str(path))


def parse_truth(text: str, source: str) -> list[FrameTruth]:
    """The frames in the text of a truth file, or of one message; `source` names it in errors.

    Raises:
        TruthError: as `read_truth`.
    """
    form = "docs/measuring.md has the format; other tools export no topic, stamp, caption and referents"
    try:
        data = validated(TruthFile, parse_json(text), source, form)
    except InputError as error:
        raise TruthError(str(error)) from error
    except ValueError as error:
        raise TruthError(f"{source}: not JSON: {one_line(error)}") from error
    frames = _frames(data.images, source)
    met: dict[tuple[int, str], tuple[int, Annotation]] = {}
    for number, annotation in enumerate(data.annotations, start=1):
        where = f"{source}: annotation {number} ({annotation.caption[:40]!r})"
        frame = frames.get(annotation.image_id)
        if frame is None:
            raise TruthError(f"{where}: no image has the id {annotation.image_id}")
        if not annotation.caption.strip():
            raise TruthError(f"{where}: its caption is empty")
        place = annotation.image_id, annotation.caption
        first, other = met.setdefault(place, (number, annotation))
        if other != annotation:
            raise TruthError(
                f"{where}: annotation {first} has the same image and caption: an annotation is one "
                "expression, so put all that it refers to under one"
            )
        try:
            _decoded(annotation, frame.size)
        except TruthError as error:
            raise TruthError(f"{where}: {error}") from error
        frame.annotations.append(annotation)
    return list(frames.values())


def _frames(images: Iterable[Frame], source: str) -> dict[int, FrameTruth]:
    """The frames by id, without annotations; TruthError if two share an id, or topic and stamp."""
    frames: dict[int, FrameTruth] = {}
    places: dict[tuple[str, int], int] = {}
    for image in images:
        if image.id in frames:
            raise TruthError(f"{source}: several images have the id {image.id}: give each its own")
        other = places.setdefault((image.topic, image.stamp), image.id)
        if other != image.id:
            raise TruthError(
                f"{source}: images {other} and {image.id} are both of {image.topic} at {image.stamp} ns: "
                "put their annotations under one"
            )
        if image.width * image.height > MAX_PIXELS:
            raise TruthError(
                f"{source}: image {image.id}: {image.width}x{image.height} is too large"
            )
        frames[image.id] = FrameTruth(image.topic, image.stamp, (image.height, image.width), [])
    return frames


def _decoded(annotation: Annotation, size: tuple[int, int]) -> Mask:
    """The mask, bool of `size`; TruthError if its run lengths or polygons do not form one."""
    coded = annotation.segmentation
    if not coded and not annotation.referents:
        return np.zeros(size, bool)
    if coded is None:
        raise TruthError(f"{annotation.referents} referents and no segmentation")
    if isinstance(coded, RunLengths) and tuple(coded.size) != size:
        raise TruthError(
            f"its segmentation is of {coded.size}, the image of {list(size)} (height, width)"
        )
    try:
        if isinstance(coded, RunLengths):
            mask = run_lengths_mask(coded.counts, size)
        elif coded:
            _check_polygons(coded, size)
            mask = rle.decode(rle.merge(rle.frPyObjects(coded, *size))).astype(bool)
        else:
            raise TruthError("its segmentation has no polygon")
    except TruthError:
        raise
    except MaskError as error:
        raise TruthError(str(error)) from error
    except Exception as error:  # pycocotools raises what its C code and numpy raise
        raise TruthError(f"its segmentation cannot be decoded: {one_line(error)}") from error
    if annotation.referents and not mask.any():
        raise TruthError(
            f"{annotation.referents} referents and a segmentation without a pixel: 0 where nothing is meant"
        )
    if mask.any() and not annotation.referents:
        raise TruthError(
            "0 referents and a segmentation with pixels: say how many objects it shows"
        )
    return mask


def _check_polygons(polygons: list[Polygon], size: tuple[int, int]) -> None:
    height, width = size
    for polygon in polygons:
        if len(polygon) % 2:
            raise TruthError("a polygon has an odd number of coordinates; they come as x, y")
        for limit, values in ((width, polygon[::2]), (height, polygon[1::2])):
            if min(values) < -1 or max(values) > limit + 1:
                raise TruthError("a polygon lies outside the image")
