"""Removes separate parts of a mask that the decoder is unsure of.

A small decoder leaves specks on things that resemble the masked one: barely above zero and far away, they
make bounding boxes and point clouds far too large. As in hysteresis thresholding (Canny, 1986), a part is
kept if some of its logits are high enough; the rest of it only has to be above zero.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def sure_parts(low_res_mask: Tensor, share: float) -> Tensor:
    """Logits [h, w] of a mask, with faint parts set to zero, outside the mask.

    Args:
        share: an 8-connected part above zero is faint if its highest logit is below this fraction of the
            mask's highest; 0: none are.
    """
    if not share:
        return low_res_mask
    logits = low_res_mask.float().cpu().numpy()
    count, found = cv2.connectedComponents((logits > 0).astype(np.uint8))
    if count <= 2:  # the background and one part
        return low_res_mask
    inside = found > 0
    highest = np.zeros(count, logits.dtype)
    np.maximum.at(highest, np.asarray(found[inside], np.intp), logits[inside])
    faint = highest < share * highest.max()
    faint[0] = False
    return low_res_mask.masked_fill(torch.from_numpy(faint[found]).to(low_res_mask.device), 0)
