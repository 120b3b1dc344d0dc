"""Objects and their parts in COCO's format: PACO-LVIS, Pascal-Part.

Source: the official `SemSegDataset` and its folders (LeapLabTHU/GSVA at 618dc79).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from ...datasets.coco import read_coco, segmentation_mask
from ...datasets.files import DatasetError, read_annotated
from ...truth import Mask
from .sample import Segments, redrawn


class CocoParts:
    """Images, each with some of its annotations."""

    def __init__(self, annotations: Path, images: Path, per_image: int) -> None:
        """Read one COCO file with categories "thing" or "thing:part"."""
        categories, pictures = read_coco(annotations)
        self._annotations, self._images, self._per_image = annotations, images, per_image
        self._names = {category: _name(category, annotations) for category in categories}
        self._pictures = [(info, found) for info, found in pictures if found]
        if not self._pictures:
            raise DatasetError(f"{annotations}: has no annotations")

    def expressions(self) -> Iterable[str]:
        """All things and parts, parts in both wordings."""
        return {text for name in self._names.values() for text in _said(name)}

    def draw(self, rng: np.random.Generator) -> Segments:
        """An image with some of its annotations, none of them empty."""
        return redrawn(self._draw, rng, self._annotations)

    def _draw(self, rng: np.random.Generator) -> Segments:
        info, found = self._pictures[int(rng.integers(len(self._pictures)))]
        path, size = self._images / info["file_name"], (info["height"], info["width"])
        rgb = read_annotated(path, size, str(self._annotations))
        shuffled = (found[k] for k in rng.permutation(len(found)))
        drawn = ((a["category"], self._mask(info, a)) for a in shuffled)
        seen = list(islice(((name, mask) for name, mask in drawn if mask.any()), self._per_image))
        texts = [str(rng.choice(_said(self._names[category]))) for category, _ in seen]
        masks = np.array([mask for _, mask in seen], bool).reshape(-1, *size)
        return Segments(rgb, tuple(texts), masks, classes=True)

    def _mask(self, info: dict[str, Any], annotation: dict[str, Any]) -> Mask:
        try:
            return segmentation_mask(annotation.get("segmentation"), info["height"], info["width"])
        except DatasetError as error:
            where = f"{self._annotations}: {info['file_name']}: annotation {annotation.get('id')}"
            raise DatasetError(f"{where}: {error}") from error


class Paco(CocoParts):
    """PACO-LVIS: ROOT/vlpart/paco/annotations/paco_lvis_v1_train.json, images in ROOT/coco."""

    def __init__(self, root: str, per_image: PositiveInt = 3) -> None:
        """Args: root: the folder that contains vlpart/ and coco/."""
        path = Path(root) / "vlpart/paco/annotations/paco_lvis_v1_train.json"
        super().__init__(path, Path(root) / "coco", per_image)


class PascalPart(CocoParts):
    """Pascal-Part: ROOT/vlpart/pascal_part/train.json, images in VOCdevkit/VOC2010/JPEGImages there."""

    def __init__(self, root: str, per_image: PositiveInt = 3) -> None:
        """Args: root: the folder that contains vlpart/."""
        folder = Path(root) / "vlpart/pascal_part"
        super().__init__(folder / "train.json", folder / "VOCdevkit/VOC2010/JPEGImages", per_image)


def _name(category: str, path: Path) -> tuple[str, ...]:
    """("thing",) or ("thing", "part"), without the sense of the word that LVIS appends after "_("."""
    name = tuple(word.split("_(")[0] for word in category.strip().split(":"))
    if len(name) > 2 or not all(name):
        raise DatasetError(f"{path}: the category {category!r} is neither 'thing' nor 'thing:part'")
    return name


def _said(name: tuple[str, ...]) -> tuple[str, ...]:
    if len(name) == 1:
        return name
    thing, part = name
    return f"{thing} {part}", f"the {part} of the {thing}"
