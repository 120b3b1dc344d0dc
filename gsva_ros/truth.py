"""Ground truth of recorded frames: COCO-style JSON, in a file or message by message in a bag.

`images` holds one entry a frame (id, width, height, topic, stamp in nanoseconds), `annotations` one an
expression (image_id, caption, category, referents, and the mask as RLE; no mask where nothing is meant).
Source: the COCO data format, with the fields `stamp`, `topic`, `caption` and `referents` beside its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

Mask = NDArray[np.bool_]


class TruthError(ValueError):
    """A truth file that cannot be used; says which and why."""


@dataclass(frozen=True)
class Referring:
    """One expression about a frame: how many things it means, and their pixels, bool [H, W]."""

    expression: str
    category: str
    referents: int
    mask: Mask


def write_truth(path: Path, topic: str, frames: Iterable[tuple[int, list[Referring]]]) -> None:
    """Write the truth of frames, each with its header's stamp in nanoseconds."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for stamp, expressions in frames:
        height, width = expressions[0].mask.shape
        image = {"id": len(images) + 1, "topic": topic, "stamp": stamp}
        images.append(image | {"width": width, "height": height})
        for each in expressions:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "caption": each.expression,
                "category": each.category,
                "referents": each.referents,
            }
            if each.referents:
                coded = rle.encode(np.asfortranarray(each.mask.astype(np.uint8)))
                annotation["area"] = int(each.mask.sum())
                annotation["bbox"] = rle.toBbox(coded).tolist()
                annotation["segmentation"] = coded | {"counts": coded["counts"].decode()}
            annotations.append(annotation)
    lines = (",\n".join(json.dumps(entry) for entry in part) for part in (images, annotations))
    path.write_text('{{"images": [\n{}\n],\n"annotations": [\n{}\n]}}\n'.format(*lines))


@dataclass(frozen=True)
class FrameTruth:
    """One frame's expressions, still encoded; `expressions` decodes the masks."""

    topic: str
    stamp: int
    size: tuple[int, int]  # height, width
    annotations: list[dict[str, Any]]

    def expressions(self) -> list[Referring]:
        """Decode this frame's masks."""
        found = []
        for entry in self.annotations:
            mask = np.zeros(self.size, bool)
            if entry["referents"]:
                mask = rle.decode(entry["segmentation"]).astype(bool)
            found.append(Referring(entry["caption"], entry["category"], entry["referents"], mask))
        return found

    def to_json(self) -> str:
        """This frame alone, in the same form as the file."""
        height, width = self.size
        image = {
            "id": 1,
            "topic": self.topic,
            "stamp": self.stamp,
            "width": width,
            "height": height,
        }
        annotations = [entry | {"image_id": 1} for entry in self.annotations]
        return json.dumps({"images": [image], "annotations": annotations})


def read_truth(path: Path) -> list[FrameTruth]:
    """Read a truth file.

    Raises:
        TruthError: it is not JSON, or a field is missing; names the file and the entry.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise TruthError(f"{path}: {error}") from error
    return parse_truth(text, str(path))


def parse_truth(text: str, source: str) -> list[FrameTruth]:
    """The frames of a truth file's text, or of one message's; `source` names it in errors.

    Raises:
        TruthError: as `read_truth`.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise TruthError(f"{source}: {error}") from error
    try:
        by_image: dict[int, list[dict[str, Any]]] = {}
        for number, entry in enumerate(data["annotations"], start=1):
            wanted = {"image_id", "caption", "category", "referents"}
            wanted |= {"segmentation"} if entry.get("referents") else set()
            if missing := sorted(wanted - entry.keys()):
                raise TruthError(f"{source}: annotation {number} lacks {', '.join(missing)}")
            by_image.setdefault(entry["image_id"], []).append(entry)
        return [
            FrameTruth(
                image["topic"],
                image["stamp"],
                (image["height"], image["width"]),
                by_image.get(image["id"], []),
            )
            for image in data["images"]
        ]
    except KeyError as error:
        raise TruthError(f"{source}: an entry lacks {error}") from error
    except (TypeError, AttributeError) as error:
        raise TruthError(f"{source}: not COCO-style: {error}") from error
