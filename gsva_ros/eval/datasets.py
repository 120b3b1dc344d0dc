"""Referring-segmentation datasets in the folders that the official GSVA reads, without conversion.

    ROOT/refer_seg/grefcoco/   grefs(unc).json, instances.json
    ROOT/refer_seg/refcoco/    refs(unc).p, instances.json       (likewise refcoco+; refcocog: refs(umd).p)
    ROOT/refer_seg/refzom/     Ref_ZOM.p, instances.json
    ROOT/refer_seg/images/mscoco/images/train2014/*.jpg
    ROOT/reason_seg/ReasonSeg/SPLIT/*.jpg and *.json

Source: the official GSVA's README and its ValDataset (commit 618dc79).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from .cases import Case, Query

Mask = NDArray[np.bool_]
Read = Callable[[], tuple[NDArray[np.uint8], list[Query]]]

REFERENCES = {
    "grefcoco": ("grefs(unc).json", "grefs(unc).p"),
    "refcoco": ("refs(unc).p",),
    "refcoco+": ("refs(unc).p",),
    "refcocog": ("refs(umd).p",),
    "refzom": ("Ref_ZOM.p",),
}
REASON_SEG = "reasonseg"
#: Whose rules each dataset's published numbers follow (`metrics.metric`).
RULES = dict.fromkeys((*REFERENCES, REASON_SEG), "refcoco")
RULES |= {"grefcoco": "grefcoco", "refzom": "refzom"}
IMAGES = Path("refer_seg/images/mscoco/images/train2014")


class DatasetError(ValueError):
    """A dataset that cannot be used; names the file and what is wrong with it."""


def dataset_cases(root: Path, name: str, split: str) -> list[Case]:
    """One case for each picture of a split, in the official order, with all its expressions.

    Raises:
        DatasetError: unknown dataset or split, a missing or unreadable file.
    """
    if name == REASON_SEG:
        return _reason_seg(root / "reason_seg" / "ReasonSeg" / split)
    if name not in REFERENCES:
        raise DatasetError(f"no dataset {name!r}; there are {', '.join(RULES)}")
    folder = root / "refer_seg" / name
    references = _references(folder, REFERENCES[name])
    instances = _json(folder / "instances.json")
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
    def read() -> tuple[NDArray[np.uint8], list[Query]]:
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
                queries.append(Query(words, category, referents, truth))
        return _picture(path), queries

    return read


def _reason_seg(folder: Path) -> list[Case]:
    pictures = sorted(folder.glob("*.jpg"))
    if not pictures:
        raise DatasetError(f"{folder} holds no *.jpg")

    def reader(path: Path) -> Read:
        def read() -> tuple[NDArray[np.uint8], list[Query]]:
            rgb = _picture(path)
            data = _json(path.with_suffix(".json"))
            truth = _labelled(data["shapes"], rgb.shape[:2])
            kind = "sentence" if data["is_sentence"] else "phrase"
            return rgb, [Query(data["text"][0].strip(), kind, 1, truth)]

        return read

    return [Case(f"{REASON_SEG} {folder.name} {path.stem}", reader(path)) for path in pictures]


def _labelled(shapes: list[dict[str, Any]], size: tuple[int, ...]) -> Mask:
    """The target's pixels: larger shapes first, so that what is cut out of them stays cut out."""
    drawn = []
    for shape in shapes:
        if shape["label"].lower() == "flag":
            continue
        canvas = np.zeros(size, np.uint8)
        points = np.array([shape["points"]], np.int32)
        cv2.polylines(canvas, points, True, 1, 1)
        cv2.fillPoly(canvas, points, 1)
        drawn.append((int(canvas.sum()), "ignore" in shape["label"].lower(), canvas > 0))
    truth = np.zeros(size, bool)
    for _, ignored, pixels in sorted(drawn, key=lambda d: -d[0]):
        truth[pixels] = not ignored
    return truth


def _picture(path: Path) -> NDArray[np.uint8]:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DatasetError(f"{path}: missing, or not a picture")
    return np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _references(folder: Path, names: tuple[str, ...]) -> list[dict[str, Any]]:
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise DatasetError(f"{folder} has no {' or '.join(names)}")
    if path.suffix == ".json":
        references: list[dict[str, Any]] = _json(path)
        return references
    try:
        with path.open("rb") as file:
            plain: list[dict[str, Any]] = _PlainUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError) as error:
        raise DatasetError(f"{path}: {error}") from error
    return plain


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, numbers and text; whatever would run code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"holds {module}.{name}, which is not plain data")


def _json(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    for encoding in ("utf-8", "cp1252"):  # some of ReasonSeg is in the latter
        try:
            return json.loads(data.decode(encoding))
        except UnicodeDecodeError:
            continue
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}: {error}") from error
    raise DatasetError(f"{path}: neither UTF-8 nor CP-1252 text")
