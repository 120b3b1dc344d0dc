"""PIL's resizing of 8-bit images, bit for bit: by PIL itself in strips, and for tensors on their device.

Source of the latter: Pillow's `Resample.c`: two passes, columns first; each sums 8-bit pixels with
antialiasing weights in 22-bit fixed point and rounds to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from threading import Thread

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

PRECISION_BITS = 32 - 8 - 2
#: Height-to-width ratio above which PIL may resize rows first.
SLIT = 100

Weights = NDArray[np.float64]
Rows = tuple[int, int]  # first, end


def _triangle(x: Weights) -> Weights:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: Weights) -> Weights:
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


#: Support and weight function of each filter. Images with other filters are resized by PIL itself.
FILTERS: dict[Image.Resampling, tuple[float, Callable[[Weights], Weights]]] = {
    Image.Resampling.BILINEAR: (1.0, _triangle),
    Image.Resampling.BICUBIC: (2.0, _cubic),
}


def columns_first(height: int, width: int, method: Image.Resampling) -> bool:
    """Whether PIL resizes an image in the two passes implemented here, columns first.

    Newer versions resize the rows of very tall images first if they shrink; methods that are not in
    `FILTERS` are not weighted sums.
    """
    return method in FILTERS and height <= SLIT * width


def in_strips(
    rgb: NDArray[np.uint8],
    height: int,
    width: int,
    method: Image.Resampling,
    put: Callable[[slice, NDArray[np.uint8]], None],
) -> None:
    """Resize uint8 [H, W, 3] with PIL, in parallel strips if torch has several threads.

    There are two strips per torch thread: with one, a slow core would delay the frame.

    Args:
        put: called with a slice of the `height` rows and their pixels, uint8 [rows, width, 3], once per
            strip, from several threads, while the pixels are in the cache. It should not use other threads.
    """
    image = Image.fromarray(np.ascontiguousarray(rgb))
    scale = image.height / height

    def strip(rows: Rows) -> None:
        first, last = rows
        box = (0.0, first * scale, float(image.width), last * scale)
        put(slice(first, last), np.asarray(image.resize((width, last - first), method, box)))

    threads = torch.get_num_threads()
    if threads == 1 or not columns_first(image.height, image.width, method):
        strip((0, height))
    else:
        cuts = strips(image.height, height, 2 * threads)
        _shared(strip, list(pairwise(cuts)), threads)


def _shared(strip: Callable[[Rows], None], cuts: Sequence[Rows], threads: int) -> None:
    """Call `strip` with each of the cuts, from this thread and up to `threads - 1` others.

    The others end with the call: a pool's would be missing after a fork, and a pool takes no work once the
    main thread has ended.
    """
    left = iter(cuts)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for rows in left:
                strip(rows)
        except BaseException as error:  # for the thread that waits
            failures.append(error)

    helpers = _started(work, min(threads, len(cuts)) - 1)
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures.pop()


def _started(work: Callable[[], None], count: int) -> list[Thread]:
    """Threads that do `work`, at most `count`: newer Pythons start none once the main thread has ended."""
    threads: list[Thread] = []
    with suppress(RuntimeError):
        for _ in range(count):
            thread = Thread(target=work, name="gsva-resize")
            thread.start()
            threads.append(thread)
    return threads


def strips(height: int, resized: int, count: int) -> list[int]:
    """Row boundaries that cut an image of `resized` rows into at most `count` strips, with 0 and `resized`.

    Each strip begins at the start of a row of the source image of `height` rows, so that PIL, which takes
    the box in float32, weights the same pixels as for the whole image.
    """
    apart = resized // math.gcd(height, resized)
    cuts = (round(resized * i / count / apart) * apart for i in range(1, count))
    return sorted({0, resized, *(cut for cut in cuts if 0 < cut < resized)})


def resample(rgb: Tensor, height: int, width: int, method: Image.Resampling) -> Tensor:
    """Resize uint8 [H, W, C] to uint8 [height, width, C] on its device, like `Image.resize`.

    Raises:
        KeyError: `method` is not in `FILTERS`.
    """
    for dim, size in ((1, width), (0, height)):
        if rgb.shape[dim] != size:
            rgb = _along(rgb, dim, size, method)
    return rgb


def _along(rgb: Tensor, dim: int, size: int, method: Image.Resampling) -> Tensor:
    places, weights = _taps(rgb.shape[dim], size, method, rgb.device)
    shape = [1, 1, 1]
    shape[dim] = size
    total = torch.full((), 1 << (PRECISION_BITS - 1), dtype=torch.int32, device=rgb.device)
    for place, weight in zip(places, weights, strict=True):
        total = total + rgb.index_select(dim, place).int() * weight.view(shape)
    return (total >> PRECISION_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=16)
def _taps(
    length: int, size: int, method: Image.Resampling, device: torch.device
) -> tuple[Tensor, Tensor]:
    """For each of `size` outputs, the input pixels out of `length`, int64 [taps, size], and weights, int32.

    This is `precompute_coeffs` and `normalize_coeffs_8bpc`, vectorised over outputs.
    """
    support, weigh = FILTERS[method]
    scale = length / size
    stretch = max(scale, 1.0)
    support *= stretch
    centers = (np.arange(size) + 0.5) * scale
    first = np.maximum(np.trunc(centers - support + 0.5), 0.0)
    last = np.minimum(np.trunc(centers + support + 0.5), length)
    taps = first + np.arange(int(np.ceil(support)) * 2 + 1)[:, None]
    inside = taps < last
    weights = np.where(inside, weigh((taps - centers + 0.5) * (1.0 / stretch)), 0.0)
    weights /= np.cumsum(weights, 0)[-1]
    fixed = np.trunc(weights * (1 << PRECISION_BITS) + np.copysign(0.5, weights))
    # Pixels beyond the last one have weight 0, so any valid index will do.
    places = np.minimum(taps, length - 1)
    return (
        torch.from_numpy(places.astype(np.int64)).to(device),
        torch.from_numpy(fixed.astype(np.int32)).to(device),
    )
