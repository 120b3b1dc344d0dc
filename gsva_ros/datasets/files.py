"""Images and JSON files of research data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError, one_line
from ..files import check_fetched, parse_json
from ..image_files import read_bgr
from ..truth import Referring


class DatasetError(InputError):
    """A data set cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Picture:
    """One image; `read` returns it, uint8 [H, W, 3] RGB, with its expressions and their ground truth.

    file: the image's. texts: the expressions' texts, if known before reading.
    """

    id: str
    file: Path
    read: Callable[[], tuple[NDArray[np.uint8], list[Referring]]]
    texts: Sequence[str] = ()


class Skip:
    """What is done with a case that cannot be used: raise, or record it and continue.

    Attributes:
        problems: what was left out.
    """

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self.problems: list[str] = []

    @contextmanager
    def __call__(self, place: object) -> Iterator[None]:
        """Wraps the reading of one case; `place` names it if the error does not."""
        try:
            yield
        except InputError as error:
            message = str(error) if str(place) in str(error) else f"{place}: {error}"
            if not self.allowed:
                raise DatasetError(
                    f"{message}; --skip (skip: true in the file of a training run) leaves out such "
                    "data and names it"
                ) from error
            self.problems.append(message)


#: EXIF's tag of how an image is turned; Pillow has a name for it from 9.4 on.
ORIENTATION = 0x0112
#: How an image is read: rotated as its EXIF says, or with its pixels as stored.
SHOWN, STORED = cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_picture(path: Path, how: int = SHOWN) -> NDArray[np.uint8]:
    """An image file as uint8 [H, W, 3] RGB, SHOWN or STORED.

    Raises:
        DatasetError: it is missing, not an image, too large, or a PNG or JPEG file that ends too early.
    """
    bgr = read_bgr(path, how, DatasetError)
    if bgr is None:
        if path.is_file():
            check_fetched(path, DatasetError)
        raise DatasetError(f"{path}: missing, or not an image")
    return np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def read_annotated(
    path: Path, size: tuple[int, int], by: str, shown: bool = False
) -> NDArray[np.uint8]:
    """An image file in the orientation that its annotations refer to, uint8 [H, W, 3] RGB.

    COCO's annotations refer to pixels as stored; to those as shown if only that size matches.

    Args:
        size: height and width according to the annotations. by: where they come from, for errors.
        shown: they refer to pixels as shown if both sizes match (`annotated_as_shown`).

    Raises:
        DatasetError: not an image, or its size does not match either way.
    """
    for how in (SHOWN, STORED) if shown else (STORED, SHOWN):
        rgb = read_picture(path, how)
        if rgb.shape[:2] == size:
            return rgb
    why = "another image, or another version of the data set"
    if rgb.shape[:2] == size[::-1]:
        why = "the image was turned after it was annotated, or width and height are exchanged there"
    raise DatasetError(
        f"{path} is {rgb.shape[1]}x{rgb.shape[0]}, but {by} says {size[1]}x{size[0]}: {why}"
    )


def annotated_as_shown(
    pictures: Iterable[tuple[Path, tuple[int, int]]],
) -> tuple[bool, list[Path]]:
    """Whether annotations made with one tool refer to pixels as shown, from images that tell by their size.

    Args:
        pictures: image files, each with height and width according to the annotations.

    Returns:
        Whether all such images tell so; and the images that EXIF turns without changing their size, if the
        others do not agree or there are none.
    """
    told: set[bool] = set()
    silent: list[Path] = []
    for path, (height, width) in pictures:
        orientation, stored = _orientation(path)
        if orientation >= 5 and height != width:
            told.add(stored != (width, height))
        elif orientation > 1:
            silent.append(path)
    return told == {True}, silent if len(told) != 1 else []


def _orientation(path: Path) -> tuple[int, tuple[int, int]]:
    """An image file's EXIF orientation, from 5 on with width and height exchanged; those as stored."""
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(ORIENTATION, 1)), image.size
    except Exception:  # damaged EXIF data can raise any exception; without it, nothing is turned
        return 1, (0, 0)


def by_id(entries: Sequence[dict[str, Any]], where: str) -> dict[Any, dict[str, Any]]:
    """The entries of a COCO file's list by their ids; `where` names file and list in errors.

    Raises:
        DatasetError: two different entries have the same id, so that a reference to it is ambiguous.
    """
    found: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        if found.setdefault(entry["id"], entry) != entry:
            raise DatasetError(f"{where}: two entries have the id {entry['id']}: give each its own")
    return found


def read_dataset_json(path: Path) -> Any:
    """The contents of a JSON file, UTF-8, UTF-16 or CP-1252; DatasetError if it is not JSON."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    check_fetched(path, DatasetError)
    for encoding in (json.detect_encoding(data), "cp1252"):  # some ReasonSeg files use the latter
        try:
            return parse_json(data.decode(encoding))
        except UnicodeDecodeError:
            continue
        except ValueError as error:
            raise DatasetError(f"{path}: not JSON: {one_line(error)}") from error
    raise DatasetError(f"{path}: neither UTF-8, UTF-16 nor CP-1252 text")
