"""Annotations in COCO's format, grouped by image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import one_line
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


def _other(data: Any) -> str:
    """What a file that is not COCO's instances seems to be; "" if that is not known."""
    entries = [entry for entry in (data, _first(data)) if isinstance(entry, dict)]
    entries += [of for entry in entries if isinstance(of := _first(entry.get("annotations")), dict)]
    return next((what for key, what in OTHERS.items() if any(key in of for of in entries)), "")


def _first(found: Any) -> Any:
    """The first entry of a list or a dictionary; None if there is none."""
    values = found.values() if isinstance(found, dict) else found
    return next(iter(values), None) if isinstance(values, Iterable) else None
