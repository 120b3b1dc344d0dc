"""The separate parts of a mask: which of them the decoder is sure of.

A small decoder leaves specks on things that look like the one it masks: hardly above zero, far from it,
and a box or a cloud of points that holds them is far too large. As in thresholding with hysteresis
(Canny, 1986), a part stays where some of it is sure enough; the rest needs to be above zero only.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def sure_parts(low_res_mask: Tensor, share: float) -> Tensor:
    """Logits [h, w] of a mask, its faint parts set to zero, which is no mask.

    Args:
        share: the 8-connected parts above zero whose highest logit is below this share of the highest of
            all are faint; 0: none are.
    """
    if not share:
        return low_res_mask
    logits = low_res_mask.float().cpu().numpy()
    count, found = cv2.connectedComponents((logits > 0).astype(np.uint8))
    if count <= 2:  # the ground and one part
        return low_res_mask
    inside = found > 0
    highest = np.zeros(count, logits.dtype)
    np.maximum.at(highest, np.asarray(found[inside], np.intp), logits[inside])
    faint = highest < share * highest.max()
    faint[0] = False
    return low_res_mask.masked_fill(torch.from_numpy(faint[found]).to(low_res_mask.device), 0)
