"""Semantic segmentation data sets: ADE20K, COCO-Stuff, Mapillary Vistas.

Source: the official `SemSegDataset` and its folders (LeapLabTHU/GSVA at 618dc79). Class names come from a
file of the data set: `classes`, or Mapillary's own configuration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from ...conversions import MessageError, check_size, undecoded
from ...datasets.files import DatasetError, read_annotated, read_dataset_json
from ...errors import InputError, one_line
from .sample import Segments, redrawn

#: Pixels without a class, after conversion from each data set's convention.
NOTHING = 255


class LabelMaps:
    """Images, each with some of its classes."""

    def __init__(
        self, pairs: list[tuple[Path, Path]], names: list[str], file: Path, per_image: int
    ) -> None:
        """Check that the names differ: a sample would ask for a shared one twice, with two masks.

        Args:
            pairs: images and their label maps.
            names: of classes 0, 1, 2, ...; "": not used. file: where they are from.
        """
        self._pairs, self._names, self._file, self._per_image = pairs, names, file, per_image
        for name, times in Counter(names).items():
            if name and times > 1:
                raise DatasetError(
                    f"{file}: {times} classes are named {name!r}: give each its own name"
                )
        for path in pairs[0]:
            if not path.is_file():
                raise DatasetError(f"{path}: no such file")

    def expressions(self) -> Iterable[str]:
        """All class names in use."""
        return [name for name in self._names if name]

    def draw(self, rng: np.random.Generator) -> Segments:
        """An image with some of its classes; images without any are redrawn."""
        return redrawn(self._draw, rng, self._pairs[0][1].parent)

    def _draw(self, rng: np.random.Generator) -> Segments:
        image, labels = self._pairs[int(rng.integers(len(self._pairs)))]
        classes = self.labels(labels)
        here = [int(c) for c in np.unique(classes) if c != NOTHING and self._name(int(c), labels)]
        chosen = [here[k] for k in rng.permutation(len(here))[: self._per_image]]
        rgb = read_annotated(image, classes.shape, str(labels))
        masks = classes == np.array(chosen, np.uint8).reshape(-1, 1, 1)
        return Segments(rgb, tuple(self._names[c] for c in chosen), masks, classes=True)

    def labels(self, path: Path) -> NDArray[np.uint8]:
        """A map's classes, uint8 [H, W]; NOTHING where there is none.

        Raises:
            DatasetError: the file is missing, or is not an image with one channel and values up to 255.
        """
        try:
            # Of a palette image, Pillow returns the indices, OpenCV the colours.
            with undecoded(path) as picture:
                width, height = picture.size
                check_size(width, height, str(path))
                found = np.asarray(picture)
        except MessageError as error:
            raise DatasetError(str(error)) from error
        except Exception as error:  # Pillow's plugins pass on errors of struct and zlib
            raise DatasetError(f"{path}: missing, or not a picture: {one_line(error)}") from error
        if found.ndim != 2 or found.max() > NOTHING:
            raise DatasetError(f"{path}: not a label map (one channel, values up to {NOTHING})")
        return found.astype(np.uint8)

    def _name(self, number: int, path: Path) -> str:
        if number >= len(self._names):
            raise DatasetError(
                f"{path} has class {number}, but {self._file} has {len(self._names)} names: one of them "
                "is of another data set, or version"
            )
        return self._names[number]


class Ade20k(LabelMaps):
    """ADE20K: ROOT/ade20k/images/training/*.jpg, annotations/training/*.png (0: nothing)."""

    def __init__(self, root: str, classes: str, per_image: PositiveInt = 3) -> None:
        """Args: classes: JSON list of the 150 names."""
        images = _found(Path(root) / "ade20k/images/training", "*.jpg")
        maps = Path(root) / "ade20k/annotations/training"
        pairs = [(image, maps / f"{image.stem}.png") for image in images]
        names = _names(read_dataset_json(Path(classes)), classes)
        super().__init__(pairs, names, Path(classes), per_image)

    def labels(self, path: Path) -> NDArray[np.uint8]:
        """Classes as in `LabelMaps.labels`: the file counts from 1, and 0 and 255 mean no class."""
        classes = super().labels(path)
        return np.where(classes == NOTHING, classes, classes - np.uint8(1))


class CocoStuff(LabelMaps):
    """COCO-Stuff: ROOT/cocostuff/train2017/*.png for ROOT/coco/train2017/*.jpg."""

    def __init__(self, root: str, classes: str, per_image: PositiveInt = 3) -> None:
        """Args: classes: the data set's text file of lines "number: name"; the first is not a class."""
        maps = _found(Path(root) / "cocostuff/train2017", "*.png")
        images = Path(root) / "coco/train2017"
        try:
            lines = Path(classes).read_text(encoding="utf-8").splitlines()[1:]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{classes}: cannot be read as text") from error
        names = [line.strip().split(": ")[-1] for line in lines]
        # Nobody says names such as "wall-brick".
        names = ["" if "-" in name else name for name in names]
        pairs = [(images / f"{m.stem}.jpg", m) for m in maps]
        super().__init__(pairs, names, Path(classes), per_image)


class Mapillary(LabelMaps):
    """Mapillary Vistas 2.0: ROOT/mapillary/training/images, v2.0/labels, config_v2.0.json."""

    def __init__(self, root: str, per_image: PositiveInt = 3) -> None:
        """Class names come from the data set's configuration file."""
        folder = Path(root) / "mapillary"
        maps = _found(folder / "training/v2.0/labels", "*.png")
        path = folder / "config_v2.0.json"
        try:
            names = [label["readable"].lower() for label in read_dataset_json(path)["labels"]]
        except (LookupError, TypeError, AttributeError) as error:
            raise DatasetError(f"{path}: no labels with their readable names") from error
        images = folder / "training/images"
        pairs = [(images / f"{m.stem}.jpg", m) for m in maps]
        super().__init__(pairs, names, path, per_image)


def _found(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise DatasetError(f"{folder} holds no {pattern}")
    return found


def _names(data: object, source: str) -> list[str]:
    if not (isinstance(data, list) and all(isinstance(name, str) for name in data)):
        raise DatasetError(f"{source}: not a list of names")
    return data
