"""Reads referring-segmentation data sets in the official GSVA's folder layout, without conversion.

    ROOT/refer_seg/grefcoco/   grefs(unc).json, instances.json
    ROOT/refer_seg/refcoco/    refs(unc).p, instances.json       (likewise refcoco+, refclef; refcocog: umd)
    ROOT/refer_seg/refzom/     Ref_ZOM.p, instances.json
    ROOT/refer_seg/images/mscoco/images/train2014/*.jpg          (refclef: images/saiapr_tc-12/)

Source: the official GSVA's README and its ValDataset (commit 618dc79), and REFER's rules of splits.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import one_line
from ..scoring import Rules
from ..truth import Referring
from .coco import segmentation_mask
from .files import DatasetError, Picture, Skip, by_id, read_annotated, read_dataset_json

COCO, SAIAPR = "mscoco/images/train2014", "saiapr_tc-12"


@dataclass(frozen=True)
class Layout:
    """One data set: the scoring rules of its published numbers (`metrics.metric`), and its files.

    files: names of its reference file, "{}": the author of the split; the first existing one is used.
    splits: the authors of its splits; "" alone if it has one split only.
    """

    rules: Rules
    files: tuple[str, ...] = ("refs({}).p",)
    splits: tuple[str, ...] = ("unc", "google")
    images: str = COCO


LAYOUTS = {
    "grefcoco": Layout("grefcoco", ("grefs({}).json", "grefs({}).p"), ("unc",)),
    "refcoco": Layout("refcoco"),
    "refcoco+": Layout("refcoco", splits=("unc",)),
    "refcocog": Layout("refcoco", splits=("umd", "google")),
    "refclef": Layout("refcoco", splits=("unc", "berkeley"), images=SAIAPR),
    "refzom": Layout("refzom", ("Ref_ZOM.p",), ("",)),
}


def pictures(
    root: Path, name: str, split: str, skip: Skip, split_by: str = "", lower: bool = True
) -> list[Picture]:
    """The images of a split, each with all its expressions in the official order.

    Args:
        skip: what is done with a reference that cannot be used.
        split_by: the author of the split; the usual one if empty.
        lower: whether expressions are converted to lower case, as in the official evaluation.

    Raises:
        DatasetError: an unknown data set or split, a missing or unreadable file, or a reference that cannot
            be used and is not skipped.
    """
    folder, layout = root / "refer_seg" / name, LAYOUTS[name]
    path = _reference_file(folder, layout, split_by)
    references = [ref for ref in _references(path) if in_split(str(ref.get("split")), split)]
    if not references:
        known = sorted({str(ref.get("split")) for ref in _references(path)})
        raise DatasetError(f"{path}: no split {split!r}; there are {', '.join(known)}")
    instances, where = read_dataset_json(folder / "instances.json"), f"{folder}/instances.json"
    try:
        annotations = by_id(instances["annotations"], f"{where}: annotations")
        infos = by_id(instances["images"], f"{where}: images")
    except (LookupError, TypeError) as error:
        raise DatasetError(f"{where}: not COCO's: {one_line(error)}") from error
    by_image: dict[int, list[dict[str, Any]]] = {}
    for ref in references:
        with skip(f"{path}: reference {ref.get('ref_id')}"):
            _check(ref, infos, annotations)
            if ref["sentences"]:  # some of gRefCOCO's have none, and ask nothing
                by_image.setdefault(ref["image_id"], []).append(ref)
    images = root / "refer_seg/images" / layout.images
    paths = {image: images / infos[image]["file_name"] for image in by_image}
    return [
        Picture(
            f"{name} {split} {image}",
            paths[image],
            partial(_read, paths[image], infos[image], refs, annotations, lower),
            [_words(sentence, lower) for ref in refs for sentence in ref["sentences"]],
        )
        for image, refs in by_image.items()
    ]


def files(root: Path, name: str, split_by: str = "") -> list[Path]:
    """The files that the truth is read from."""
    folder = root / "refer_seg" / name
    return [_reference_file(folder, LAYOUTS[name], split_by), folder / "instances.json"]


def in_split(of: str, wanted: str) -> bool:
    """Whether a reference of split `of` is in the split `wanted`.

    Source: REFER's `getRefIds`: the letter of testA, testB or testC may occur in "testAB" and the like;
    "test" matches all splits with it in their name.
    """
    if wanted in ("testA", "testB", "testC"):
        return of.startswith("test") and wanted[-1] in of.removeprefix("test")
    if wanted == "test":
        return "test" in of
    return of == wanted


def _check(ref: dict[str, Any], infos: Mapping[Any, Any], annotations: Mapping[Any, Any]) -> None:
    """Check that a reference has an image, annotations and text."""
    try:
        if ref["image_id"] not in infos:
            raise DatasetError(f"instances.json lacks its image {ref['image_id']!r}")
        info = infos[ref["image_id"]]
        size = all(isinstance(info.get(side), int) for side in ("height", "width"))
        if not size or not isinstance(info.get("file_name"), str):
            raise DatasetError("instances.json lacks its image's file_name, height or width")
        if missing := [i for i in _instances(ref) if i not in annotations]:
            raise DatasetError(f"instances.json lacks its annotation {missing[0]!r}")
        if not all(_words(s) for s in ref["sentences"]):
            raise DatasetError("a sentence is empty")
        "".join(_words(s) for s in ref["sentences"]).encode()
        _box(annotations, _instances(ref))
    except DatasetError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(f"not a reference: {one_line(error)}") from error


def _instances(ref: dict[str, Any]) -> list[int]:
    """Annotation ids of the targets; no target is [-1], [None] or None in gRefCOCO, [] in Ref-ZOM."""
    ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    return [i for i in ids if i not in (-1, None)]


def _box(
    annotations: Mapping[Any, Any], ids: list[int]
) -> tuple[float, float, float, float] | None:
    """The annotated box of a single target: x, y, width, height; None if there is none."""
    given = annotations[ids[0]].get("bbox") if len(ids) == 1 else None
    if not given:
        return None
    try:
        x, y, width, height = (float(value) for value in given)
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"its annotation {ids[0]}: bbox is not four numbers") from error
    return x, y, width, height


def _words(sentence: dict[str, Any], lower: bool = True) -> str:
    words: str = sentence["sent"].strip()
    return (words.lower() if lower else words).strip(".")


def _read(
    path: Path,
    info: dict[str, Any],
    references: list[dict[str, Any]],
    annotations: dict[int, dict[str, Any]],
    lower: bool,
) -> tuple[NDArray[np.uint8], list[Referring]]:
    height, width = info["height"], info["width"]
    rgb = read_annotated(path, (height, width), "instances.json")
    queries: list[Referring] = []
    for ref in references:
        ids, truth = _instances(ref), np.zeros((height, width), bool)
        for i in ids:
            try:
                truth |= segmentation_mask(annotations[i].get("segmentation"), height, width)
            except DatasetError as error:
                raise DatasetError(f"instances.json: annotation {i}: {error}") from error
        # As in the official evaluation, a target with an empty mask is no target.
        referents = len(ids) if truth.any() else 0
        category = ("no target", "single")[referents] if referents < 2 else "multi"
        box = _box(annotations, ids) if referents else None
        queries += [
            Referring(_words(sentence, lower), category, referents, truth, box=box)
            for sentence in ref["sentences"]
        ]
    return rgb, queries


def _reference_file(folder: Path, layout: Layout, split_by: str) -> Path:
    who = split_by or layout.splits[0]
    if who not in layout.splits and layout.splits == ("",):
        raise DatasetError(f"{folder.name} has one split only: leave out its author, {who!r}")
    if who not in layout.splits:
        raise DatasetError(f"{folder.name} is split by {' or '.join(layout.splits)}, not {who!r}")
    names = [name.format(who) for name in layout.files]
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise DatasetError(f"{folder} has no {' or '.join(names)}")
    return path


def _references(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        plain = read_dataset_json(path)
    else:
        try:
            with path.open("rb") as file:
                plain = _PlainUnpickler(file, encoding="utf-8").load()  # bytes of Python 2 are text
        except Exception as error:  # a damaged pickle can raise any exception
            raise DatasetError(f"{path}: not a pickle of plain data: {one_line(error)}") from error
    if not (isinstance(plain, list) and all(isinstance(ref, dict) for ref in plain)):
        raise DatasetError(f"{path}: not a list of references")
    return plain


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, numbers and text; rejects anything that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"holds {module}.{name}, which is not plain data")
