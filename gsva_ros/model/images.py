"""Frames on their way to both vision towers: checked, uploaded, resized and normalised."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .resample import columns_first, in_strips, resample

Rgb = NDArray[np.uint8]


def check_rgb(rgb: object) -> Rgb:
    """Return `rgb` if it is a non-empty uint8 array of shape (H, W, 3).

    Raises:
        TypeError: not a uint8 array.
        ValueError: wrong shape or empty.
    """
    if not isinstance(rgb, np.ndarray):
        raise TypeError(f"a frame is a numpy array, not {type(rgb).__name__}")
    if rgb.dtype != np.uint8:
        raise TypeError(f"a frame holds uint8 values 0 to 255, not {rgb.dtype}; convert it first")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a frame has shape (H, W, 3) in RGB order, not {rgb.shape}")
    if rgb.size == 0:
        raise ValueError(f"the frame is empty: shape {rgb.shape}")
    return rgb


def upload(rgb: Rgb, device: torch.device) -> Rgb | Tensor:
    """The frame for preprocessing on `device`: unchanged for a CPU, else copied to the device once."""
    if device.type == "cpu":
        return rgb
    pinned = device.type == "cuda"
    staged = torch.empty(rgb.shape, dtype=torch.uint8, device="cpu", pin_memory=pinned)
    staged.numpy()[...] = rgb
    return staged.to(device, non_blocking=True)


def blank(shape: tuple[int, ...], beside: Rgb | Tensor) -> Tensor:
    """Float32 zeros on the device of the frame `beside`; on a CPU by numpy, as in `normalise`."""
    if isinstance(beside, Tensor):
        return torch.zeros(shape, dtype=torch.float32, device=beside.device)
    return torch.from_numpy(np.zeros(shape, np.float32))


def resize(rgb: Rgb | Tensor, height: int, width: int, method: Image.Resampling) -> Tensor:
    """Resize uint8 [H, W, 3] to uint8 [height, width, 3] like PIL, which both official preprocessings use.

    An array is resized by PIL itself, a tensor on its device, bit for bit the same.
    """
    if isinstance(rgb, Tensor):
        if columns_first(rgb.shape[0], rgb.shape[1], method):
            return resample(rgb, height, width, method)
        return resize(rgb.cpu().numpy(), height, width, method).to(rgb.device)
    resized = np.empty((height, width, 3), np.uint8)
    in_strips(rgb, height, width, method, resized.__setitem__)
    return torch.from_numpy(resized)


def resize_normalised(
    rgb: Rgb | Tensor,
    pixels: Tensor,
    method: Image.Resampling,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> None:
    """`resize` uint8 [H, W, 3] into float32 `pixels` [height, width, 3], and `normalise` in place."""
    height, width, _ = pixels.shape
    if isinstance(rgb, Tensor):
        normalise(pixels.copy_(resize(rgb, height, width, method)), mean, std)
        return

    def put(rows: slice, strip: Rgb) -> None:
        pixels[rows].numpy()[...] = strip
        normalise(pixels[rows], mean, std)

    in_strips(rgb, height, width, method, put)


def normalise(pixels: Tensor, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
    """(pixels - mean) / std per channel of float32 pixels [H, W, 3], in place.

    On a CPU by numpy in the calling thread: torch would wake its thread pool for a millisecond of work,
    which can take ten.
    """
    height, width, _ = pixels.shape
    rows = pixels.view(height, -1)  # broadcasting over an innermost dimension of 3 is slow
    means, deviations = np.tile(mean, width), np.tile(std, width)
    if rows.is_cpu:
        values = rows.numpy()
        np.subtract(values, means, out=values)
        np.divide(values, deviations, out=values)
    else:
        rows.sub_(torch.from_numpy(means).to(rows.device))
        rows.div_(torch.from_numpy(deviations).to(rows.device))
