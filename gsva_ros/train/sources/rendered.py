"""Rendered scenes (`gsva sim render`), whose truth names everything in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from ...scenes import SceneSet
from .sample import Segments


class RenderedScenes:
    """Scenes with some of their expressions; half of those of a set are of nothing."""

    def __init__(
        self,
        path: str,
        split: str = "train",
        per_image: PositiveInt = 8,
        limit: PositiveInt | None = None,
    ) -> None:
        """Open a folder of scenes.

        Args:
            split: the split that the folder must hold.
            per_image: expressions of a scene in one sample, at most.
            limit: the first so many scenes only.

        Raises:
            InputError: it holds no such scenes.
        """
        self._scenes, self._per_image = SceneSet(Path(path), split, limit), per_image

    def expressions(self) -> Iterable[str]:
        """All of them."""
        return {each.text for scene in self._scenes.expressions for each in scene}

    def draw(self, rng: np.random.Generator) -> Segments:
        """A scene with some of its expressions."""
        row = int(rng.integers(len(self._scenes)))
        asked = self._scenes.expressions[row]
        chosen = [asked[k] for k in rng.permutation(len(asked))[: self._per_image]]
        rows = np.full(len(chosen), row)
        masks = self._scenes.target_masks(rows, [each.targets for each in chosen])
        image = np.ascontiguousarray(self._scenes.rgb[row])
        return Segments(image, tuple(each.text for each in chosen), masks)
