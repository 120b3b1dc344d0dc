"""Questions about images, answered in text: LLaVA's instruction data.

Source: the official `VQADataset` (LeapLabTHU/GSVA at 618dc79): ROOT/llava_dataset/llava_instruct_150k.json,
images in ROOT/coco/train2017.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.files import DatasetError, read_dataset_json, read_picture
from ...errors import one_line
from .sample import Talk

IMAGE = "<image>"


class LlavaInstruct:
    """Conversations, each about one image."""

    def __init__(self, root: str, file: str = "llava_instruct_150k.json") -> None:
        """Args: root: the folder that contains llava_dataset/ and coco/. file: name in llava_dataset/."""
        path = Path(root) / "llava_dataset" / file
        self._images, items = Path(root) / "coco/train2017", read_dataset_json(path)
        try:
            self._talks = [(Path(i["image"]), _rounds(i["conversations"])) for i in items]
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise DatasetError(f"{path}: not LLaVA's conversations: {one_line(error)}") from error
        if not self._talks:
            raise DatasetError(f"{path}: has no conversations")

    def expressions(self) -> Iterable[str]:
        """None: nothing is to be segmented."""
        return ()

    def draw(self, rng: np.random.Generator) -> Talk:
        """An image with its conversation."""
        image, rounds = self._talks[int(rng.integers(len(self._talks)))]
        return Talk(read_picture(self._images / image), rounds)


def _rounds(said: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Pairs of question and answer; an opening turn of the model is dropped."""
    if said[0]["from"] != "human":
        said = said[1:]
    speakers = [turn["from"] for turn in said]
    if speakers != ["human", "gpt"] * (len(said) // 2) or not said:
        raise ValueError(f"human and gpt do not alternate: {speakers[:4]}")
    words = [turn["value"].replace(IMAGE, "").strip() for turn in said]
    return tuple(zip(words[::2], words[1::2], strict=True))
