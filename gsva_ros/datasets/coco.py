"""Annotations in COCO's format, grouped by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import one_line
from .files import DatasetError, read_json

#: An image's entry, with at least `file_name`, `height` and `width`, and its annotations.
Annotated = tuple[dict[str, Any], list[dict[str, Any]]]


def read_coco(path: Path) -> tuple[list[str], list[Annotated]]:
    """Category names, and every image in the file's order; an annotation's "category" is the name.

    Annotations of images that are not listed are ignored, so that images can be held out.

    Raises:
        DatasetError: not COCO's annotations, or one with a category that the file does not define.
    """
    data = read_json(path)
    try:
        categories = {c["id"]: str(c["name"]) for c in data["categories"]}
        pictures: dict[Any, Annotated] = {i["id"]: (i, []) for i in data["images"]}
        for info, _ in pictures.values():
            Path(info["file_name"]), info["height"], info["width"]
        for annotation in data["annotations"]:
            category, picture = annotation["category_id"], annotation["image_id"]
            if category not in categories:
                raise DatasetError(f"{path}: an annotation has no category {category}")
            if picture in pictures:
                named = annotation | {"category": categories[category]}
                pictures[picture][1].append(named)
    except (LookupError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: not COCO's: {one_line(error)}") from error
    return list(categories.values()), list(pictures.values())
