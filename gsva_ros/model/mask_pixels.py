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

#: x0, y0, x1, y1 in pixels, the last two exclusive.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Enlarger:
    """From one size of logits to one size of frame.

    rows [H, h], columns [W, w]: weights of the logits in each row and column of pixels.
    """

    rows: Tensor
    columns: Tensor

    def __call__(self, low_res_mask: Tensor) -> tuple[Box, NDArray[np.bool_]] | None:
        """Logits [h, w] to the box around the mask's pixels and the mask in it; None: there is none."""
        logits = low_res_mask.to(self.rows)
        positive = logits > 0
        rows, columns = (
            _reached(self.rows, positive.any(1)),
            _reached(self.columns, positive.any(0)),
        )
        if rows is None or columns is None:
            return None
        within = self.rows[rows] @ logits @ self.columns[columns].T > 0
        ys, xs = within.any(1).nonzero(), within.any(0).nonzero()
        if not len(ys):
            return None
        (y0, y1), (x0, x1) = (int(ys[0]), int(ys[-1]) + 1), (int(xs[0]), int(xs[-1]) + 1)
        crop = within[y0:y1, x0:x1].cpu().numpy()
        left, top = columns.start, rows.start
        return (left + x0, top + y0, left + x1, top + y1), np.ascontiguousarray(crop)


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
        _weights(low_res[axis], image_size, resized[axis], original[axis]).to(device)
        for axis in (0, 1)
    )
    return Enlarger(rows, columns)


def _weights(low_res: int, image_size: int, resized: int, original: int) -> Tensor:
    """[original, low_res]: what one axis of the two interpolations and the crop between them makes."""
    unit = torch.eye(low_res)[None]
    inside = F.interpolate(unit, image_size, mode="linear")[..., :resized]
    return F.interpolate(inside, original, mode="linear")[0].T.contiguous()


def _reached(weights: Tensor, positive: Tensor) -> slice | None:
    """From the first to the last pixel that a positive logit has weight in."""
    touched = (weights[:, positive] > 0).any(1).nonzero()
    return slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else None
