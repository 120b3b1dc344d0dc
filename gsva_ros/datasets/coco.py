"""Annotations in COCO's format, grouped by image, and their masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from ..coco_masks import MaskError, run_lengths_mask
from ..errors import one_line
from ..truth import Mask
from .files import DatasetError, by_id, read_dataset_json

#: An image's entry, with at least `file_name`, `height` and `width`, and its annotations.
Annotated = tuple[dict[str, Any], list[dict[str, Any]]]
#: What other files are, by a key of theirs, of their first entry or of its first annotation.
OTHERS = {
    "shapes": "labelme's labels of one image: labelme2coco converts a folder of them",
    "objects": "labels of one image, as Supervisely's: export the project in COCO's format",
    "regions": "VGG Image Annotator's: export it there in COCO's format",
    "_via_img_metadata": "VGG Image Annotator's: export it there in COCO's format",
    "result": "Label Studio's tasks: export them there in COCO's format",
    "bbox_mode": "detectron2's list of images: its convert_to_coco_json converts a registered one",
    "score": "a detector's results, without images and categories",
    "caption": "COCO's captions: use the file of instances",
    "segments_info": "COCO's panoptic annotations: use the file of instances",
}
#: Polygons may extend outside their image, as some annotated ones do, up to this multiple of its size.
FAR = 10


def read_coco(path: Path) -> tuple[list[str], list[Annotated]]:
    """Category names, and every image in the file's order; an annotation's "category" is the name.

    Annotations of images that are not listed are ignored, so that images can be held out.

    Raises:
        DatasetError: not COCO's annotations, two images or categories with one id, an annotation with a
            category that the file does not define, or annotations of none of the images.
    """
    data, where = read_dataset_json(path), ""
    try:
        named = by_id(data["categories"], f"{path}: categories")
        categories = {number: category["name"] for number, category in named.items()}
        infos = by_id(data["images"], f"{path}: images")
        pictures: dict[Any, Annotated] = {n: (info, []) for n, info in infos.items()}
        for number, name in categories.items():
            if not isinstance(name, str):
                raise DatasetError(f"{path}: the category {number} has no name")
        for number, info in infos.items():
            where = f"image {number}: "
            Path(info["file_name"])
            if not all(type(info[side]) is int for side in ("height", "width")):
                raise DatasetError(f"{path}: the size of image {number} is not two whole numbers")
        for index, annotation in enumerate(data["annotations"]):
            where = f"annotations[{index}]: "
            category, picture = annotation["category_id"], annotation["image_id"]
            if category not in categories:
                raise DatasetError(f"{path}: {where}no category has the id {category!r}")
            if picture in pictures:
                pictures[picture][1].append(annotation | {"category": categories[category]})
        if data["annotations"] and not any(found for _, found in pictures.values()):
            raise DatasetError(
                f"{path}: no annotation is of an image that it lists: image_id {picture!r} of the last "
                f"one is not among the ids {', '.join(map(repr, [*pictures][:3])) or '(none)'}"
            )
    except (LookupError, TypeError, AttributeError) as error:
        lacks = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        other = f" but {what}" if (what := _other(data)) else f": {where}{lacks}"
        raise DatasetError(f"{path}: not COCO's instances{other}") from error
    return list(categories.values()), list(pictures.values())


def segmentation_mask(segmentation: Any, height: int, width: int) -> Mask:
    """A COCO segmentation, polygons or run lengths (compressed or not), as bool [height, width].

    Polygons of fewer than three points, or with half a point, enclose nothing and are ignored.

    Raises:
        DatasetError: it is neither, or has another size.
    """
    try:
        if isinstance(segmentation, dict):
            counts, size = segmentation["counts"], list(segmentation["size"])
            if size != [height, width]:
                raise DatasetError(
                    f"its run lengths are for {size}, the image is {[height, width]} (height, width)"
                )
            counts = counts.decode("ascii") if isinstance(counts, bytes) else counts
            return run_lengths_mask(counts, (height, width))
        if not isinstance(segmentation, list):
            raise DatasetError(f"not a COCO segmentation: {type(segmentation).__name__}")
        if segmentation and isinstance(segmentation[0], dict):
            parts = [segmentation_mask(part, height, width) for part in segmentation]
            return np.logical_or.reduce(parts)
        flat = not all(isinstance(polygon, list | tuple) for polygon in segmentation)
        if flat or any(isinstance(value, list) for polygon in segmentation for value in polygon):
            raise DatasetError(
                "not a COCO segmentation: it must be a list of polygons, each a list x, y, x, y, …"
            )
        polygons = [p for p in segmentation if len(p) % 2 == 0 and len(p) >= 6]
        if not polygons:
            return np.zeros((height, width), bool)
        far = max(float(np.abs(np.asarray(p, np.float64)).max()) for p in polygons)
        if not far <= FAR * max(height, width):
            raise DatasetError(f"a polygon's coordinate is {far}, in an image of {width}x{height}")
        return rle.decode(rle.merge(rle.frPyObjects(polygons, height, width))).astype(bool)
    except MaskError as error:
        raise DatasetError(str(error)) from error
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"not a COCO segmentation: {one_line(error)}") from error


def _other(data: Any) -> str:
    """What a file that is not COCO's instances seems to be; "" if that is not known."""
    entries = [entry for entry in (data, _first(data)) if isinstance(entry, dict)]
    entries += [of for entry in entries if isinstance(of := _first(entry.get("annotations")), dict)]
    return next((what for key, what in OTHERS.items() if any(key in of for of in entries)), "")


def _first(found: Any) -> Any:
    """The first entry of a list or a dictionary; None if there is none."""
    values = found.values() if isinstance(found, dict) else found
    return next(iter(values), None) if isinstance(values, Iterable) else None
