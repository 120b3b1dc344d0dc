"""Rendered scenes (`gsva sim render`), whose ground truth is complete, and photographs with masks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from ...errors import InputError
from ...scenes import SceneSet
from .sample import Segments


class RenderedScenes:
    """Scenes with some of their expressions, of which half are absent."""

    def __init__(
        self,
        path: str,
        split: str = "train",
        per_image: PositiveInt = 8,
        limit: PositiveInt | None = None,
    ) -> None:
        """Open a folder of scenes; those with boxes (`SceneSet.outlined`) are left out, and counted.

        Args:
            split: the split that the folder must contain.
            per_image: maximum number of expressions of a scene in one sample.
            limit: use only the first `limit` scenes.

        Raises:
            InputError: the folder does not contain such scenes, or none with an expression and outlines.
        """
        self._scenes, self._per_image = SceneSet(Path(path), split, limit), per_image
        asked = self._scenes.asked()
        self._asked = asked[self._scenes.outlined[asked]]
        if not len(self._asked):
            raise InputError(
                f"{path}: no scene has outlines, and boxes would be learnt as masks: give rendered scenes, "
                "or photographs with masks instead of boxes"
            )
        if boxed := len(asked) - len(self._asked):
            print(f"left out: {path}: scenes with boxes, no outlines: {boxed}", file=sys.stderr)

    def expressions(self) -> Iterable[str]:
        """All expressions of the scenes."""
        return {each.text for scene in self._scenes.expressions for each in scene}

    def draw(self, rng: np.random.Generator) -> Segments:
        """A scene with some of its expressions."""
        row = int(self._asked[rng.integers(len(self._asked))])
        asked = self._scenes.expressions[row]
        chosen = [asked[k] for k in rng.permutation(len(asked))[: self._per_image]]
        rows = np.full(len(chosen), row)
        masks = self._scenes.target_masks(rows, [each.targets for each in chosen])
        image = np.ascontiguousarray(self._scenes.rgb[row])
        return Segments(image, tuple(each.text for each in chosen), masks)
