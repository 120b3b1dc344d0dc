"""Low-resolution mask logits to the pixels of a frame, computed only where a mask can be.

Bringing a mask to the frame's size (`sam.postprocess_masks`) is linear and separable, so it is a product
with one matrix from each side; and where no logit around a pixel is positive, the pixel is not either. So a
small thing on a large frame costs little, and no whole frame of logits is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..masks import Pixels, trimmed


@dataclass(frozen=True)
class Axis:
    """One axis of the way from logits to pixels.

    weights [N, n]: of n logits in each of N pixels. pixels [n, 2], logits [N, 2]: from the first to behind
    the last pixel that a logit has weight in (none where it is padding), and the reverse.
    """

    weights: Tensor
    pixels: NDArray[np.intp]
    logits: NDArray[np.intp]

    @classmethod
    def of(cls, weights: Tensor, device: torch.device) -> Axis:
        """The axis of these weights, on the device."""
        touched = weights.numpy() > 0
        return cls(weights.to(device), _ranges(touched.T), _ranges(touched))

    def reached(self, positive: Tensor) -> tuple[slice, slice] | None:
        """The pixels that positive logits [n] have weight in, and the logits that have weight in those."""
        pixels = self.pixels[positive.cpu().numpy()]
        pixels = pixels[pixels[:, 1] > 0]
        if not len(pixels):
            return None
        first, last = int(pixels[0, 0]), int(pixels[-1, 1])
        return slice(first, last), slice(int(self.logits[first, 0]), int(self.logits[last - 1, 1]))


@dataclass(frozen=True)
class Enlarger:
    """From one size of logits to one size of frame."""

    rows: Axis
    columns: Axis

    def __call__(self, low_res_mask: Tensor) -> Pixels | None:
        """Logits [h, w] to the box around the mask's pixels and the mask in it; None: there is none."""
        logits = low_res_mask.to(self.rows.weights)
        positive = logits > 0
        rows = self.rows.reached(positive.any(1))
        columns = self.columns.reached(positive.any(0))
        if rows is None or columns is None:
            return None
        (ys, high), (xs, wide) = rows, columns
        across = logits[high, wide] @ self.columns.weights[xs, wide].T
        within = (self.rows.weights[ys, high] @ across > 0).cpu().numpy()
        return trimmed(within, xs.start, ys.start)


@lru_cache(maxsize=16)
def enlarger(
    low_res: tuple[int, int],
    image_size: int,
    resized: tuple[int, int],
    original: tuple[int, int],
    device: torch.device,
) -> Enlarger:
    """Sizes (height, width) as for `sam.postprocess_masks`; float32 on the device."""
    rows, columns = (
        Axis.of(_weights(low_res[axis], image_size, resized[axis], original[axis]), device)
        for axis in (0, 1)
    )
    return Enlarger(rows, columns)


def _weights(low_res: int, image_size: int, resized: int, original: int) -> Tensor:
    """[original, low_res]: what one axis of the two interpolations and the crop between them makes."""
    unit = torch.eye(low_res)[None]
    inside = F.interpolate(unit, image_size, mode="linear")[..., :resized]
    return F.interpolate(inside, original, mode="linear")[0].T.contiguous()


def _ranges(touched: NDArray[np.bool_]) -> NDArray[np.intp]:
    """From the first to behind the last True of each row, [rows, 2]; 0, 0 where there is none."""
    first, behind = touched.argmax(1), touched.shape[1] - touched[:, ::-1].argmax(1)
    found: NDArray[np.intp] = np.stack([first, behind], 1)
    found[~np.any(touched, axis=1)] = 0
    return found
