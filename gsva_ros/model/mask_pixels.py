"""Low-resolution mask logits to full-resolution masks, computed only where the mask can be positive.

Resizing a mask to the frame (`sam.postprocess_masks`) is linear and separable: a product with one matrix
from each side. A pixel can only be positive if one of the logits it is interpolated from is. So a small
object in a large frame is cheap, and a full frame of logits is never computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..masks import Region, trimmed


@dataclass(frozen=True)
class Axis:
    """The interpolation from logits to pixels along one axis.

    weights: [N, n], of n logits in each of N pixels. pixels: [n, 2], the range [first, end) of pixels that
    a logit contributes to (empty for padding). logits: [N, 2], the range of logits that contribute to a
    pixel.
    """

    weights: Tensor
    pixels: NDArray[np.intp]
    logits: NDArray[np.intp]

    @classmethod
    def of(cls, weights: Tensor, device: torch.device) -> Axis:
        """Create an axis from its weights [N, n], on the device."""
        touched = weights.numpy() > 0
        return cls(weights.to(device), _ranges(touched.T), _ranges(touched))

    def reached(self, positive: Tensor) -> tuple[slice, slice] | None:
        """The range of pixels that positive logits [n] contribute to, and of all logits that these need."""
        pixels = self.pixels[positive.cpu().numpy()]
        pixels = pixels[pixels[:, 1] > 0]
        if not len(pixels):
            return None
        first, last = int(pixels[0, 0]), int(pixels[-1, 1])
        return slice(first, last), slice(int(self.logits[first, 0]), int(self.logits[last - 1, 1]))


@dataclass(frozen=True)
class Enlarger:
    """Resizes logits of one size to frames of one size."""

    rows: Axis
    columns: Axis

    def __call__(self, low_res_mask: Tensor) -> Region | None:
        """Logits [h, w] to the mask; None if it is empty."""
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
    """The enlarger for sizes (height, width) as in `sam.postprocess_masks`; float32 on the device."""
    rows, columns = (
        Axis.of(_weights(low_res[axis], image_size, resized[axis], original[axis]), device)
        for axis in (0, 1)
    )
    return Enlarger(rows, columns)


def _weights(low_res: int, image_size: int, resized: int, original: int) -> Tensor:
    """Weights [original, low_res] of the two interpolations and the crop between them, for one axis."""
    unit = torch.eye(low_res, dtype=torch.float32, device="cpu")[None]
    inside = F.interpolate(unit, image_size, mode="linear")[..., :resized]
    return F.interpolate(inside, original, mode="linear")[0].T.contiguous()


def _ranges(touched: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The range [first, end) that holds all True of each row, [rows, 2]; 0, 0 if there is none."""
    first, behind = touched.argmax(1), touched.shape[1] - touched[:, ::-1].argmax(1)
    found: NDArray[np.intp] = np.stack([first, behind], 1)
    found[~np.any(touched, axis=1)] = 0
    return found
