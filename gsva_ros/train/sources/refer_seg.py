"""Referring expressions of COCO's pictures: RefCOCO, RefCOCO+, RefCOCOg, RefClef, gRefCOCO, Ref-ZOM.

Things that are not there come from gRefCOCO and Ref-ZOM alone: the others name only what is there.
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
from .sample import Segments, redrawn


class ReferSeg:
    """Pictures of one data set, each with some of its expressions."""

    def __init__(
        self,
        root: str,
        name: str,
        split: str = "train",
        split_by: str = "",
        per_image: PositiveInt = 3,
        skip: bool = False,
    ) -> None:
        """Read the references and look whether each can be used.

        Args:
            root: the folder with refer_seg/ in it.
            name: refcoco, refcoco+, refcocog, refclef, grefcoco or refzom.
            split_by: unc, umd, google or berkeley; the usual one where empty.
            per_image: expressions of a picture in one sample, at most; 5 are advised for gRefCOCO.
            skip: leave references out that cannot be used.

        Raises:
            InputError: unknown data set, a missing file, a reference that cannot be used.
        """
        if name not in refer.LAYOUTS:
            raise InputError(f"{root}: no data set {name!r}; there are {', '.join(refer.LAYOUTS)}")
        self._pictures = refer.pictures(Path(root), name, split, Skip(skip), split_by, lower=False)
        self._per_image, self._place = per_image, f"{root}: {name} {split}"

    def expressions(self) -> Iterable[str]:
        """None: they stand in the references, which published models have read."""
        return ()

    def draw(self, rng: np.random.Generator) -> Segments:
        """A picture with some of its expressions, of which one at least is there."""
        return redrawn(self._draw, rng, self._place)

    def _draw(self, rng: np.random.Generator) -> Segments:
        rgb, queries = self._pictures[int(rng.integers(len(self._pictures)))].read()
        chosen = [queries[k] for k in rng.permutation(len(queries))[: self._per_image]]
        masks = np.stack([q.mask for q in chosen if q.mask is not None])
        return Segments(rgb, tuple(q.expression for q in chosen), masks)
