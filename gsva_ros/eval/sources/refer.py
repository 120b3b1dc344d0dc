"""Referring-segmentation datasets in the folders that the official GSVA reads, without conversion.

    ROOT/refer_seg/grefcoco/   grefs(unc).json, instances.json
    ROOT/refer_seg/refcoco/    refs(unc).p, instances.json       (likewise refcoco+; refcocog: refs(umd).p)
    ROOT/refer_seg/refzom/     Ref_ZOM.p, instances.json
    ROOT/refer_seg/images/mscoco/images/train2014/*.jpg

Source: the official GSVA's README and its ValDataset (commit 618dc79).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from ...errors import one_line
from ...truth import Mask, Referring
from ..cases import Case
from .files import DatasetError, read_json, read_picture

Read = Callable[[], tuple[NDArray[np.uint8], list[Referring]]]

REFERENCES = {
    "grefcoco": ("grefs(unc).json", "grefs(unc).p"),
    "refcoco": ("refs(unc).p",),
    "refcoco+": ("refs(unc).p",),
    "refcocog": ("refs(umd).p",),
    "refzom": ("Ref_ZOM.p",),
}
#: Whose rules each dataset's published numbers follow (`metrics.metric`).
RULES = dict.fromkeys(REFERENCES, "refcoco") | {"grefcoco": "grefcoco", "refzom": "refzom"}
IMAGES = Path("refer_seg/images/mscoco/images/train2014")


def cases(root: Path, name: str, split: str) -> list[Case]:
    """One case for each picture of a split, in the official order, with all its expressions.

    Raises:
        DatasetError: unknown dataset or split, a missing or unreadable file.
    """
    folder = root / "refer_seg" / name
    references = _references(folder, REFERENCES[name])
    instances = read_json(folder / "instances.json")
    splits = sorted({ref["split"] for ref in references})
    if split not in splits:
        raise DatasetError(f"{folder}: no split {split!r}; there are {', '.join(splits)}")
    annotations = {a["id"]: a for a in instances["annotations"]}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for ref in references:
        if ref["split"] == split:
            by_image.setdefault(ref["image_id"], []).append(ref)
    infos = {i["id"]: i for i in instances["images"]}
    if missing := sorted(set(by_image) - set(infos)):
        raise DatasetError(f"{folder}/instances.json lacks the images {missing[:5]} …")
    return [
        Case(
            f"{name} {split} {image}",
            _referring(root / IMAGES / infos[image]["file_name"], infos[image], refs, annotations),
        )
        for image, refs in by_image.items()
    ]


def segmentation_mask(segmentation: Any, height: int, width: int) -> Mask:
    """A COCO segmentation, polygons or run lengths (compressed or not), as bool [height, width].

    Polygons of fewer than three points enclose nothing and are left out.
    """
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], dict):
        parts = [segmentation_mask(part, height, width) for part in segmentation]
        return np.logical_or.reduce(parts)
    if isinstance(segmentation, dict):
        coded = segmentation
        if isinstance(segmentation["counts"], list):
            coded = rle.frPyObjects(segmentation, height, width)
        mask: Mask = rle.decode(coded).astype(bool)
        return mask
    polygons = [p for p in segmentation if len(p) % 2 == 0 and len(p) >= 6]
    if not polygons:
        return np.zeros((height, width), bool)
    return rle.decode(rle.merge(rle.frPyObjects(polygons, height, width))).astype(bool)


def _referring(
    path: Path,
    info: dict[str, Any],
    references: list[dict[str, Any]],
    annotations: dict[int, dict[str, Any]],
) -> Read:
    def read() -> tuple[NDArray[np.uint8], list[Referring]]:
        height, width = info["height"], info["width"]
        queries = []
        for ref in references:
            ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
            ids = [i for i in ids if i != -1]  # gRefCOCO writes no target as [-1], Ref-ZOM as []
            truth = np.zeros((height, width), bool)
            for i in ids:
                truth |= segmentation_mask(annotations[i]["segmentation"], height, width)
            # As in the official evaluation, a target without a pixel is no target.
            referents = len(ids) if truth.any() else 0
            category = ("no target", "single")[referents] if referents < 2 else "multi"
            for sentence in ref["sentences"]:
                words = sentence["sent"].strip().lower().strip(".")
                queries.append(Referring(words, category, referents, truth))
        return read_picture(path), queries

    return read


def _references(folder: Path, names: tuple[str, ...]) -> list[dict[str, Any]]:
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise DatasetError(f"{folder} has no {' or '.join(names)}")
    if path.suffix == ".json":
        references: list[dict[str, Any]] = read_json(path)
        return references
    try:
        with path.open("rb") as file:
            plain: list[dict[str, Any]] = _PlainUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises whatever its opcodes meet
        raise DatasetError(f"{path}: {one_line(error)}") from error
    return plain


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, numbers and text; whatever would run code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"holds {module}.{name}, which is not plain data")
