"""Shared by all rows: scenes, their encoder features, and a model's initial weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..model.bundled import model_directory
from ..model.checkpoint import Checkpoint, load_converted
from ..model.gsva import GSVA
from ..scenes import SceneSet
from ..sim.dataset import write_dataset
from ..train.frames import Frames
from ..train.kept import kept, key_of

BASE_MODEL = "gsva-mini"
COUNTS = {"train": 6000, "val": 150, "test": 300}
#: Number of pre-trained language model layers that a run starts with.
READING_LAYERS = 4


@dataclass(frozen=True)
class EncodedScenes:
    """A split's scenes with the features of the frozen encoders.

    clip_tokens: float16 [N, T, Cv]. image_embeddings: float16 [N, C, h, w].
    """

    scenes: SceneSet
    clip_tokens: npt.NDArray[np.float16]
    image_embeddings: npt.NDArray[np.float16]

    def clip(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """clip_tokens float32 [B, T, Cv] of these scenes."""
        return torch.from_numpy(self.clip_tokens[rows]).float()

    def sam(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """image_embeddings float32 [B, C, h, w] of these scenes."""
        return torch.from_numpy(self.image_embeddings[rows]).float()


def encoded_scenes(folder: Path, split: str) -> EncodedScenes:
    """Render a split into `folder` and encode it, or read the results of an earlier run."""
    place = folder / split
    write_dataset(place, split, COUNTS[split], workers=1)
    scenes = SceneSet(place, split)
    model = load_converted(model_directory(BASE_MODEL)).model
    frames, key = Frames(scenes, model.config), key_of(model, scenes.folders)
    files = [place / "clip.npy", place / "sam.npy"]
    clip, sam = kept(
        files,
        key,
        len(scenes),
        32,
        lambda r: [model.encode_clip(frames.clip(r)), model.encode_sam(frames.sam(r))],
    )
    return EncodedScenes(scenes, clip, sam)


def initial_checkpoint(seed: int) -> Checkpoint:
    """gsva-mini's vision towers, mask decoder, word embeddings and lower language model layers.

    The upper layers, slot token embeddings, lm_head and mask prompt projection are initialised randomly.
    """
    taught = load_converted(model_directory(BASE_MODEL))
    torch.manual_seed(seed)
    model = GSVA(taught.model.config)
    own, old = model.model, taught.model.model
    parts = ["vision_tower", "visual_model", "mm_norm", "mm_projector", "mm_position"]
    parts += [f"layers.{number}" for number in range(READING_LAYERS)]
    for part in parts:
        own.get_submodule(part).load_state_dict(old.get_submodule(part).state_dict())
    words = taught.model.config.seg_token_id
    with torch.no_grad():
        own.embed_tokens.weight[:words] = old.embed_tokens.weight[:words]
    return Checkpoint(model, taught.prompt, weights_hash="")
