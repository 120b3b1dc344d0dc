"""Refines mask edges from the frame's own pixels: a departure, for models with low-resolution input.

The decoder of gsva-mini predicts masks on a coarse grid, from features of a squashed frame. A small U-Net
sees the pixels around each mask and predicts its logits again, so that edges follow the image. It sees no
text: what to mask was decided before. Source of the idea: CascadePSP (Cheng et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..masks import Box, Region, trimmed
from .images import Rgb

#: Side of the network's input and output in pixels.
SIDE = 128
#: Maximum number of separate parts of a mask that get a window each; more share one window.
PARTS = 6
#: Margin of a window around its mask on each side: this fraction of the longer side, plus so many pixels.
MARGIN, LEAST = 0.25, 4
#: Input logits are clamped to ± this value before the network's output is added.
SURE = 8.0


@dataclass(frozen=True)
class Window:
    """A crop around a mask.

    box: of the crop in the frame. rgb: uint8 [SIDE, SIDE, 3], and logits: float32 [SIDE, SIDE], are the
    frame and the mask inside the box, resized to SIDE x SIDE.
    """

    box: Box
    rgb: Rgb
    logits: Tensor


def filled(low_res_masks: Tensor, image_size: int, resized: Sequence[int]) -> tuple[float, float]:
    """Rows and columns of masks [..., h, w] that the frame fills; the rest is padding.

    Args:
        image_size: side of SAM's square input.
        resized: (height, width) of the frame inside it.
    """
    height, width = low_res_masks.shape[-2:]
    return resized[0] * height / image_size, resized[1] * width / image_size


def window(
    rgb: Rgb, low_res_mask: Tensor, inside: tuple[float, float], margin: float = MARGIN
) -> Window | None:
    """The window around a mask; None if no logit is positive.

    Args:
        rgb: uint8 [H, W, 3].
        low_res_mask: logits [h, w].
        inside: rows and columns of it that the frame fills (`filled`).
    """
    positive = (low_res_mask > 0).cpu().numpy()
    return _around(positive, rgb, low_res_mask, inside, margin) if np.any(positive) else None


def windows(rgb: Rgb, low_res_mask: Tensor, inside: tuple[float, float]) -> list[Window]:
    """A window around each separate part of a mask, so that parts far apart are not seen more coarsely.

    Arguments as for `window`; empty if no logit is positive.
    """
    positive = (low_res_mask > 0).cpu().numpy()
    count, found = cv2.connectedComponents(positive.astype(np.uint8))
    few = count - 1 <= PARTS  # one component is the background
    parts = [np.equal(found, part) for part in range(1, count)] if few else [positive]
    return [_around(part, rgb, low_res_mask, inside, MARGIN) for part in parts]


def stretched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize an image [h, w, ...] to SIDE x SIDE: by area if it shrinks, else by interpolation."""
    shrinks = max(picture.shape[:2]) > SIDE
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    found = cv2.resize(np.ascontiguousarray(picture), (SIDE, SIDE), interpolation=how)
    return np.asarray(found, np.uint8)


def drawn(logits: Tensor, box: Box) -> Region | None:
    """A window's logits [SIDE, SIDE] to the mask in the frame; None if it is empty."""
    x0, y0, x1, y1 = box
    pixels = F.interpolate(
        logits[None, None].float(), (y1 - y0, x1 - x0), mode="bilinear", align_corners=False
    )
    return trimmed((pixels[0, 0] > 0).cpu().numpy(), x0, y0)


def _around(
    part: NDArray[np.bool_], rgb: Rgb, mask: Tensor, inside: tuple[float, float], margin: float
) -> Window:
    """The window around a non-empty part [h, w] of a mask."""
    box = _box(part, inside, rgb.shape[:2], margin)
    x0, y0, x1, y1 = box
    logits = _looked_up(mask, inside, rgb.shape[:2], box)
    return Window(box, stretched(rgb[y0:y1, x0:x1]), logits)


def _box(
    part: NDArray[np.bool_], inside: tuple[float, float], size: Sequence[int], margin: float
) -> Box:
    """The box of a window: as square as the frame allows, in whole pixels, at least one."""
    ends = []
    for axis in (1, 0):  # x, then y
        found = np.flatnonzero(np.any(part, 1 - axis))
        pixels = size[axis] / inside[axis]
        first, last = found[0] * pixels, (found[-1] + 1) * pixels
        # Positive logits in the padding count as the frame's edge.
        ends.append((min(first, size[axis] - 1), min(last, size[axis])))
    half = max(b - a for a, b in ends) * (0.5 + margin) + LEAST
    (x0, x1), (y0, y1) = (
        (max(0, round((a + b) / 2 - half)), min(length, round((a + b) / 2 + half)))
        for (a, b), length in zip(ends, (size[1], size[0]), strict=True)
    )
    return x0, y0, x1, y1


def _looked_up(
    low_res_mask: Tensor, inside: tuple[float, float], size: Sequence[int], box: Box
) -> Tensor:
    """The logits at the pixel centres of a window, [SIDE, SIDE]."""
    centres = (torch.arange(SIDE, dtype=torch.float32, device="cpu") + 0.5) / SIDE
    at = []
    for axis, (first, last) in enumerate(((box[1], box[3]), (box[0], box[2]))):
        pixels = first + centres * (last - first)
        logits = pixels * (inside[axis] / size[axis])
        at.append(2 * logits / low_res_mask.shape[axis] - 1)  # grid_sample's coordinates
    grid = torch.stack([at[1].expand(SIDE, SIDE), at[0][:, None].expand(SIDE, SIDE)], -1)
    found = F.grid_sample(
        low_res_mask[None, None].float(),
        grid[None].to(low_res_mask.device),
        padding_mode="border",
        align_corners=False,
    )
    return found[0, 0]


class _Block(nn.Module):
    """Two 3x3 convolutions, with a residual connection if shapes match."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x), inplace=True))
        return F.relu(x + y if self.adds else y, inplace=True)


class _Up(nn.Module):
    """Upsample by 2 and merge with the skip connection `beside`."""

    def __init__(self, inputs: int, beside: int, outputs: int) -> None:
        super().__init__()
        self.joined = nn.Conv2d(inputs + beside, outputs, 1)
        self.block = _Block(outputs, outputs)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        # `joined` is 1x1, so what it makes of x can be upsampled after it: a quarter of the work.
        of_x, of_beside = self.joined.weight.split([x.shape[1], beside.shape[1]], 1)
        y = F.conv2d(beside, of_beside, self.joined.bias)
        y += F.interpolate(F.conv2d(x, of_x), scale_factor=2.0, mode="nearest")
        return self.block(F.relu(y, inplace=True))


class Refiner(nn.Module):
    """Predicts mask logits again from the pixels around each mask.

    Pixel unshuffle by 2 before the first convolution and shuffle after the last keep the cost small
    (0.34 GFLOP per window).
    """

    def __init__(self, widths: Sequence[int]) -> None:
        """Args: widths: channels at 1/2, 1/4, and 1/8 (and below) of SIDE."""
        super().__init__()
        fine, middle, coarse = widths
        self.first = nn.Conv2d(4 * 5, fine, 3, 1, 1)
        self.fine = _Block(fine, fine)
        self.middle = _Block(fine, middle, 2)
        self.coarse = _Block(middle, coarse, 2)
        self.around = nn.Sequential(_Block(coarse, coarse, 2), _Block(coarse, coarse))
        self.to_coarse = _Up(coarse, coarse, coarse)
        self.to_middle = _Up(coarse, middle, middle)
        self.to_fine = _Up(middle, fine, fine)
        self.last = nn.Conv2d(fine, 4, 1)
        nn.init.zeros_(self.last.weight)  # an untrained refiner leaves masks unchanged
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, rgb: Tensor, logits: Tensor) -> Tensor:
        """rgb [K, 3, SIDE, SIDE] in 0..1 and logits [K, SIDE, SIDE] to logits of the same shape."""
        mask = logits[:, None]
        # Two ranges of the logits: fine near the edge, and the confidence away from it.
        seen = torch.cat([4 * rgb - 2, 2 * (mask / 2).tanh(), 2 * (mask / 10).tanh()], 1)
        x = F.pixel_unshuffle(seen, 2).contiguous(memory_format=torch.channels_last)
        fine = self.fine(F.relu(self.first(x), inplace=True))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        x = self.to_coarse(self.around(coarse), coarse)
        x = self.to_fine(self.to_middle(x, middle), fine)
        return logits.clamp(-SURE, SURE) + F.pixel_shuffle(self.last(x), 2)[:, 0]

    def refine(
        self, rgb: Rgb, low_res_masks: Sequence[Tensor], inside: tuple[float, float]
    ) -> list[Region | None]:
        """Refine a frame's masks in one batch; None for one that is empty.

        Args:
            rgb: uint8 [H, W, 3]. low_res_masks, inside: as for `window`.
        """
        each = [windows(rgb, mask, inside) for mask in low_res_masks]
        looked_at = [window for of_mask in each for window in of_mask]
        if not looked_at:
            return [None] * len(each)
        weight = self.first.weight
        pixels = torch.from_numpy(np.stack([w.rgb for w in looked_at])).to(weight.device)
        logits = torch.stack([w.logits for w in looked_at]).to(weight.dtype)
        refined = iter(self(pixels.permute(0, 3, 1, 2).to(weight.dtype) / 255, logits))
        found = ([drawn(next(refined), w.box) for w in of_mask] for of_mask in each)
        seen = [[region for region in of_mask if region] for of_mask in found]
        return [Region.around(of_mask) if of_mask else None for of_mask in seen]
