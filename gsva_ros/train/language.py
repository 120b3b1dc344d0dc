"""Second stage: the language model learns to decide slots and to prompt the mask decoder.

Both encoders are frozen and their features cached, so that a step costs the language model alone;
the joint stage afterwards (`joint.py`) runs the encoders too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..model.gsva import GSVA
from .frames import Frames
from .loop import Stage, decayed
from .packing import IGNORE, Packed, pack
from .prompts import SymbolicPrompt, attributes_of
from ..scenes import SceneSet, grid_samples
from .text import Branches
from .vision import mask_logits, mask_losses

MATCH_LAYER = 3


class Matcher(nn.Module):
    """Which image patches a slot speaks of, read half-way up the language model (auxiliary loss)."""

    def __init__(self, width: int, channels: int = 64) -> None:
        super().__init__()
        self.query = nn.Linear(width, channels)
        self.key = nn.Linear(width, channels)
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, slots: Tensor, patches: Tensor) -> Tensor:
        """Args: slots [K, D]; patches [K, N, D]. Returns logits [K, N]."""
        query, keys = self.query(slots), self.key(patches)
        return torch.einsum("kc,knc->kn", query, keys) / query.shape[-1] ** 0.5 + self.bias


class FeatureCache:
    """Both encoders' features of every scene, float16 on disk, computed once."""

    def __init__(self, model: GSVA, frames: Frames, path: Path, device: torch.device) -> None:
        count = len(frames)
        self.path = path
        clip_path, sam_path = path / "clip_tokens.npy", path / "image_embeddings.npy"
        if not (path / "complete").exists():
            path.mkdir(parents=True, exist_ok=True)
            clip_file = sam_file = None
            for start in tqdm(range(0, count, 64), desc="features", mininterval=5.0):
                rows = np.arange(start, min(start + 64, count))
                clip, sam = encode(model, frames.clip(rows), frames.sam(rows), device)
                if clip_file is None or sam_file is None:
                    clip_file = np.lib.format.open_memmap(
                        clip_path, "w+", np.float16, (count, *clip.shape[1:])
                    )
                    sam_file = np.lib.format.open_memmap(
                        sam_path, "w+", np.float16, (count, *sam.shape[1:])
                    )
                clip_file[rows], sam_file[rows] = clip.half().cpu().numpy(), sam.half().cpu().numpy()
            (path / "complete").touch()
        self.clip_tokens = np.load(clip_path, mmap_mode="r")
        self.image_embeddings = np.load(sam_path, mmap_mode="r")

    def clip(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """clip_tokens [B, N, C] of these scenes."""
        return torch.from_numpy(self.clip_tokens[rows]).to(device).float()

    def sam(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """image_embeddings [B, C, h, w] of these scenes."""
        return torch.from_numpy(self.image_embeddings[rows]).to(device).float()


@torch.no_grad()
def encode(
    model: GSVA, clip_pixels: Tensor, sam_pixels: Tensor, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features of both encoders."""
    with torch.autocast(device.type, torch.bfloat16):
        return (
            model.encode_clip(clip_pixels.to(device)).float(),
            model.encode_sam(sam_pixels.to(device)).float(),
        )


class LanguageLoss:
    """GSVA's losses on packed branches, with three auxiliary terms that make a small model learn.

    1.0 cross-entropy of the answer + 2.0 BCE + 0.5 dice of the masks (paper, section 3.3), and: the slot
    decisions' own cross-entropy, the patch match, and the distance to the symbolic prompt.
    """

    def __init__(
        self,
        model: GSVA,
        scenes: SceneSet,
        branches: Branches,
        matcher: Matcher,
        symbolic: SymbolicPrompt,
        device: torch.device,
        masks_per_step: int = 48,
    ) -> None:
        self.model, self.scenes, self.branches = model, scenes, branches
        self.matcher, self.symbolic, self.device = matcher, symbolic, device
        self.masks_per_step = masks_per_step
        prefix = branches.prompt.prefix()
        self.before = torch.tensor(prefix.before_image, device=device)
        self.after = torch.tensor(prefix.after_image, device=device)

    def __call__(
        self,
        rows: np.ndarray,
        rng: np.random.Generator,
        clip_tokens: Tensor,
        embeddings_of: Callable[[np.ndarray], Tensor],
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of the scenes `rows` [B]; embeddings_of(places in the batch) gives [K, C, h, w]."""
        model = self.model
        images = [self.branches.sample(self.scenes.expressions[int(r)], rng) for r in rows]
        before, after = len(self.before), len(self.after)
        prefix = before + clip_tokens.shape[1] + after
        packed = pack(prefix, images).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            image_tokens = model.project(clip_tokens)
            batch = len(rows)
            x = torch.cat(
                [
                    model.embed(self.before).expand(batch, -1, -1),
                    image_tokens,
                    model.embed(self.after).expand(batch, -1, -1),
                    model.embed(packed.ids),
                ],
                1,
            )
            bias = torch.zeros(packed.allowed.shape, device=self.device, dtype=torch.bfloat16)
            bias.masked_fill_(~packed.allowed, float("-inf"))
            out = model.language(
                x, attention_mask=bias, position_ids=packed.position_ids, hidden_layer=MATCH_LAYER
            )
            hidden = out.hidden_last[:, prefix:]
            spoken = packed.labels != IGNORE
            logits = model.lm_head(hidden[spoken]).float()
            labels = packed.labels[spoken]
            per_token = F.cross_entropy(logits, labels, reduction="none")
            slot_ids = torch.tensor(self.branches.slot_ids, device=self.device)
            is_slot = torch.isin(labels, slot_ids)
            slot_loss, text_loss = per_token[is_slot].mean(), per_token[~is_slot].mean()

            image, place = packed.slot_at.unbind(1)
            slots = hidden[image, place]
            middle = out.hidden_middle
            match = self.matcher(
                middle[image, prefix + place], middle[image, before : before + image_tokens.shape[1]]
            )
            masks, figures = self._masks(rows, packed, slots, rng, embeddings_of)
        match_loss = F.binary_cross_entropy_with_logits(match.float(), self._coverage(rows, packed))
        decided = logits[is_slot][:, slot_ids].argmax(-1)
        right = slot_ids[decided] == labels[is_slot]
        absent = labels[is_slot] == slot_ids[1]
        figures |= {
            "text": text_loss.item(),
            "slot": slot_loss.item(),
            "match": match_loss.item(),
            "N": right[absent].float().mean().item(),
            "T": right[~absent].float().mean().item(),
        }
        return text_loss + slot_loss + 2.0 * match_loss + masks, figures

    def _coverage(self, rows: np.ndarray, packed: Packed) -> Tensor:
        """How much of each CLIP patch the slot's targets cover, float32 [K, N]."""
        grid = self.model.config.clip["image_size"] // self.model.config.clip["patch_size"]
        samples = grid_samples(self.scenes.instances[rows], grid, grid)
        image = packed.slot_at[:, 0].cpu().numpy()
        table = np.zeros((len(image), 256), np.float32)
        for k, ids in enumerate(packed.slot_targets):
            table[k, list(ids)] = 1.0
        flat = samples[image].reshape(len(image), -1)
        covered = np.take_along_axis(table, flat, 1).reshape(len(image), grid * grid, -1)
        return torch.from_numpy(covered.mean(-1)).to(self.device)

    def _masks(
        self,
        rows: np.ndarray,
        packed: Packed,
        slots: Tensor,
        rng: np.random.Generator,
        embeddings_of: Callable[[np.ndarray], Tensor],
    ) -> tuple[Tensor, dict[str, float]]:
        present = [k for k, targets in enumerate(packed.slot_targets) if targets]
        chosen = rng.permutation(present)[: self.masks_per_step]
        prompts = self.model.mask_prompts(slots[torch.from_numpy(chosen).to(self.device)])
        places = packed.slot_at[:, 0].cpu().numpy()[chosen]
        targets = [packed.slot_targets[k] for k in chosen]
        symbols = [
            attributes_of(self.scenes, int(rows[p]), t) for p, t in zip(places, targets, strict=True)
        ]
        with torch.no_grad():
            wanted = self.symbolic(
                torch.tensor([s[0] for s in symbols], device=self.device),
                torch.tensor([s[1] for s in symbols], device=self.device),
            ).float()
        distance = F.mse_loss(prompts.float(), wanted) / wanted.var().clamp(min=1e-6)
        low_res, predicted_iou = self.model.decode_masks(embeddings_of(places), prompts)
        truth = torch.from_numpy(self.scenes.target_masks(rows[places], targets))
        truth = truth.to(self.device).float()
        logits = mask_logits(low_res, truth.shape[1:], self.model.config.sam["image_size"])
        masks, iou = mask_losses(logits, truth)
        loss = masks + 0.1 * F.mse_loss(predicted_iou.float(), iou) + 0.5 * distance
        return loss, {"mask": masks.item(), "iou": iou.mean().item(), "dist": distance.item()}


def language_groups(model: GSVA, matcher: Matcher) -> list[dict[str, object]]:
    """The optimiser's groups: language model and what feeds it, mask prompts, mask decoder."""
    inner = model.model
    reading = [inner.embed_tokens, inner.layers, inner.norm, model.lm_head, inner.mm_projector]
    reading += [inner.mm_norm, inner.mm_position, matcher]
    return [
        decayed(reading, 1e-3),
        decayed([inner.text_hidden_fcs], 1e-3),
        decayed([inner.visual_model.mask_decoder], 3e-4),
    ]


def train_language(
    loss: LanguageLoss, cache: FeatureCache, steps: int, path: Path, batch: int = 32
) -> None:
    """Train the language model on cached features, simple expressions first."""
    model = loss.model
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    groups = language_groups_trainable(model, loss.matcher)
    stage = Stage("language", {"model": model, "matcher": loss.matcher}, groups, steps, path)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([3, step])
        rows = rng.integers(len(loss.scenes), size=batch)
        return loss(
            rows,
            rng,
            cache.clip(rows, loss.device),
            lambda places: cache.sam(rows[places], loss.device),
        )

    stage.run(loss_of, report_every=50)
