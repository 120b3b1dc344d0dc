"""Annotations in COCO's format, picture by picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import one_line
from .files import DatasetError, read_json

#: A picture's entry, with at least `file_name`, `height` and `width`, and its annotations.
Annotated = tuple[dict[str, Any], list[dict[str, Any]]]


def read_coco(path: Path) -> tuple[list[str], list[Annotated]]:
    """Categories' names, and every picture in the file's order; "category" of an annotation is its name.

    Annotations of pictures that are not listed are passed over: pictures may be held out so.

    Raises:
        DatasetError: not COCO's annotations, or one of a category that the file has not.
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
