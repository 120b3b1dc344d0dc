"""Annotations in COCO's format, grouped by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import one_line
from .files import DatasetError, by_id, read_json

#: An image's entry, with at least `file_name`, `height` and `width`, and its annotations.
Annotated = tuple[dict[str, Any], list[dict[str, Any]]]


def read_coco(path: Path) -> tuple[list[str], list[Annotated]]:
    """Category names, and every image in the file's order; an annotation's "category" is the name.

    Annotations of images that are not listed are ignored, so that images can be held out.

    Raises:
        DatasetError: not COCO's annotations, two images or categories with one id, an annotation with a
            category that the file does not define, or annotations of none of the images.
    """
    data = read_json(path)
    try:
        categories = {n: c["name"] for n, c in by_id(data["categories"], path).items()}
        infos = by_id(data["images"], path)
        pictures: dict[Any, Annotated] = {n: (info, []) for n, info in infos.items()}
        for number, name in categories.items():
            if not isinstance(name, str):
                raise DatasetError(f"{path}: the category {number} has no name")
        for number, info in infos.items():
            Path(info["file_name"])
            if not all(type(info[side]) is int for side in ("height", "width")):
                raise DatasetError(f"{path}: the size of image {number} is not two whole numbers")
        for annotation in data["annotations"]:
            category, picture = annotation["category_id"], annotation["image_id"]
            if category not in categories:
                raise DatasetError(f"{path}: an annotation has no category {category}")
            if picture in pictures:
                named = annotation | {"category": categories[category]}
                pictures[picture][1].append(named)
        if data["annotations"] and not any(found for _, found in pictures.values()):
            raise DatasetError(
                f"{path}: no annotation is of an image that it lists: image_id {picture!r} of the last "
                f"one is not among the ids {', '.join(map(repr, [*pictures][:3]))}…"
            )
    except (LookupError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: not COCO's: {one_line(error)}") from error
    return list(categories.values()), list(pictures.values())
