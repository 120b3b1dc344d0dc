"""Pictures and JSON of research datasets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, one_line
from ..truth import Referring


class DatasetError(InputError):
    """A dataset that cannot be used; names the file and what is wrong with it."""


@dataclass(frozen=True)
class Picture:
    """One picture; `read` gives it, uint8 [H, W, 3] RGB, with its expressions and their truth.

    texts: what the expressions say, where that is known before.
    """

    id: str
    read: Callable[[], tuple[NDArray[np.uint8], list[Referring]]]
    texts: Sequence[str] = ()


class Skip:
    """What is done with a case that cannot be used: raise, or note it and go on.

    Attributes:
        problems: what was left out.
    """

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self.problems: list[str] = []

    @contextmanager
    def __call__(self, place: object) -> Iterator[None]:
        """Around the reading of one case; `place` names it where the error does not."""
        try:
            yield
        except InputError as error:
            message = str(error) if str(place) in str(error) else f"{place}: {error}"
            if not self.allowed:
                raise DatasetError(f"{message}; --skip leaves such out and counts them") from error
            self.problems.append(message)


#: How a picture is read: turned as its EXIF says, or with its pixels as they are stored.
SHOWN, STORED = cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_picture(path: Path, how: int = SHOWN) -> NDArray[np.uint8]:
    """A picture file as uint8 [H, W, 3] RGB, SHOWN or STORED; DatasetError where it is none."""
    bgr = cv2.imread(str(path), how)
    if bgr is None:
        raise DatasetError(f"{path}: missing, or not a picture")
    return np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def read_annotated(path: Path, size: tuple[int, int], by: str) -> NDArray[np.uint8]:
    """A picture file with its pixels where its annotations mean them, uint8 [H, W, 3] RGB.

    COCO's annotations are of the pixels as they are stored; of one whose size fits only so, as it is shown.

    Args:
        size: height and width by the annotations. by: what says so, for errors.

    Raises:
        DatasetError: no picture, or one that is of another size either way.
    """
    for how in (STORED, SHOWN):
        rgb = read_picture(path, how)
        if rgb.shape[:2] == size:
            return rgb
    raise DatasetError(
        f"{path} is {rgb.shape[1]}x{rgb.shape[0]}, and {by} says {size[1]}x{size[0]}: another picture, "
        "or another version of the data set"
    )


def read_json(path: Path) -> Any:
    """A JSON file, UTF-8 or CP-1252; DatasetError where it is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    for encoding in ("utf-8", "cp1252"):  # some of ReasonSeg is in the latter
        try:
            return json.loads(data.decode(encoding))
        except UnicodeDecodeError:
            continue
        except (ValueError, RecursionError) as error:  # also of a number too long to read
            raise DatasetError(f"{path}: {one_line(error)}") from error
    raise DatasetError(f"{path}: neither UTF-8 nor CP-1252 text")
