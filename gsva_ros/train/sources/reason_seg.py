"""Questions whose answer is a region, some with an explanation: ReasonSeg.

Source: the official `ReasonSegDataset` (LeapLabTHU/GSVA at 618dc79).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets import reasonseg
from ...datasets.files import DatasetError, Skip, read_dataset_json
from ...errors import one_line
from .sample import Reasoning, read_one, usable


class ReasonSeg:
    """Images, each with one of its questions."""

    def __init__(self, root: str, split: str = "train", skip: bool = False) -> None:
        """Read the labels and, if present, the explanations.

        Args:
            root: the folder with reason_seg/ReasonSeg/ in it; explanations in explanatory/train.json there.
            skip: leave out images that cannot be used.

        Raises:
            InputError: there are no images, or none that can be used, or their labels are invalid.
        """
        self._skip = Skip(skip)
        pictures = reasonseg.pictures(Path(root), split, self._skip, all_texts=True)
        self._pictures = usable(pictures, self._skip, f"{root}: {reasonseg.NAME} {split}")
        path = Path(root) / "reason_seg/ReasonSeg/explanatory/train.json"
        self._explained = _explanations(path) if path.exists() else {}

    def expressions(self) -> Iterable[str]:
        """All questions; explanations may be of any length, since they are truncated."""
        return {text for picture in self._pictures for text in picture.texts}

    def draw(self, rng: np.random.Generator) -> Reasoning:
        """An image with one of its questions."""
        picture, rgb, queries = read_one(self._pictures, self._skip, rng)
        query = queries[int(rng.integers(len(queries)))]
        assert query.mask is not None
        return Reasoning(
            rgb,
            query.expression,
            query.region == "sentence",
            query.mask,
            self._explained.get(picture.file.name, ""),
        )


def _explanations(path: Path) -> dict[str, str]:
    items: Any = read_dataset_json(path)
    try:
        return {item["image"]: str(item["outputs"]) for item in items}
    except (LookupError, TypeError) as error:
        raise DatasetError(f"{path}: not ReasonSeg's explanations: {one_line(error)}") from error
