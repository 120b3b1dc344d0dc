"""Referring expression data sets: RefCOCO, RefCOCO+, RefCOCOg, RefClef, gRefCOCO, Ref-ZOM.

Only gRefCOCO and Ref-ZOM have absent expressions.
Source: the official `ReferSegDataset` (LeapLabTHU/GSVA at 618dc79).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from ...datasets import refer
from ...datasets.files import Skip
from ...errors import InputError
from .sample import Segments, read_one, redrawn, usable


class ReferSeg:
    """Images of one data set, each with some of its expressions."""

    def __init__(
        self,
        root: str,
        name: str,
        split: str = "train",
        split_by: str = "",
        per_image: PositiveInt = 3,
        skip: bool = False,
    ) -> None:
        """Read the references and check that each can be used.

        Args:
            root: the folder that contains refer_seg/.
            name: refcoco, refcoco+, refcocog, refclef, grefcoco or refzom.
            split_by: unc, umd, google or berkeley; "": the usual one.
            per_image: maximum number of expressions of an image in one sample; for gRefCOCO 5 is advised.
            skip: leave out references and images that cannot be used.

        Raises:
            InputError: unknown data set, a missing file, a reference that cannot be used, or none that can.
        """
        if name not in refer.LAYOUTS:
            raise InputError(f"{root}: no data set {name!r}; there are {', '.join(refer.LAYOUTS)}")
        self._skip = Skip(skip)
        self._per_image, self._place = per_image, f"{root}: {name} {split}"
        pictures = refer.pictures(Path(root), name, split, self._skip, split_by, lower=False)
        self._pictures = usable(pictures, self._skip, self._place)

    def expressions(self) -> Iterable[str]:
        """All expressions, of all images."""
        return {text for picture in self._pictures for text in picture.texts}

    def draw(self, rng: np.random.Generator) -> Segments:
        """An image with some of its expressions, at least one of them present."""
        return redrawn(self._draw, rng, self._place)

    def _draw(self, rng: np.random.Generator) -> Segments:
        _, rgb, queries = read_one(self._pictures, self._skip, rng)
        chosen = [queries[k] for k in rng.permutation(len(queries))[: self._per_image]]
        masks = np.stack([q.mask for q in chosen if q.mask is not None])
        return Segments(rgb, tuple(q.expression for q in chosen), masks)
