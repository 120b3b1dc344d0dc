"""Optical flow between a key frame and the newest frame of a camera, and masks carried along it.

The flow between the two is initialised with the previous one, and checked: forward and backward flow have
to agree, and the pixels have to look alike.

Sources: DIS flow (Kroeger et al., ECCV 2016) as in OpenCV; the forward-backward check of Sundaram, Brox and
Keutzer (ECCV 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .masks import Box, Region, mask_box

#: Longer side, and minimum of the shorter side, of the reduced frames that flow is computed on, pixels.
LONG_SIDE, SHORTEST_SIDE = 320, 32
#: Frames between two intermediate steps, and the maximum number of steps.
STRIDE, STONES = 4, 16
#: A pixel passes the check if the forward-backward error is below the first, in reduced pixels, and its
#: brightness and both colour differences (0 to 255) have changed by less than the second; the latter apart
#: from those of the whole picture, which the white balance changes. Brightness alone does not show that a
#: thing was taken from a table that is as bright.
MEETS, ALIKE = 3.0, 25.0
#: Below this fraction of the whole frame's pixels that pass, all masks are lost.
CUT = 0.3

Colour = NDArray[np.uint8]  # [h, w, 3]: brightness and two colour differences (YCrCb)
Grey = NDArray[np.uint8]  # [h, w]
#: [h, w, 2]: a pixel's position in the other frame minus its position in this one.
Flow = NDArray[np.float32]

SCENE_CUT = "the image has changed beyond recognition since the model's answer"


@dataclass(eq=False)
class KeyFrame:
    """A key frame, and the flow between it and the newest frame."""

    stamp: int
    colour: Colour
    size: tuple[int, int]  # height, width of the full image
    reached: int  # stamp of the frame that the flow leads to
    grey: Grey = field(init=False)
    back: Flow = field(init=False)  # newest -> key
    forth: Flow = field(init=False)  # key -> newest
    passed: NDArray[np.bool_] = field(init=False)  # pixels of the newest that pass the check
    #: 255 where the newest frame shows what the key frame does not.
    uncovered: NDArray[np.uint8] = field(init=False)
    broken: str = ""  # why nothing can be carried from it any more

    def __post_init__(self) -> None:
        self.grey = greyscale(self.colour)
        self.back = np.zeros((*self.grey.shape, 2), np.float32)
        self.forth = np.zeros_like(self.back)
        self.passed = np.ones(self.grey.shape, bool)
        self.uncovered = np.zeros(self.grey.shape, np.uint8)

    def shows(self, size: tuple[int, int], colour: Colour) -> bool:
        """Whether this is its picture: others may have the same stamp."""
        return self.size == size and np.array_equal(self.colour, colour)

    def footprint(self, region: Region) -> NDArray[np.uint8]:
        """A mask of this frame in its reduced form, [h, w], 0 or 255: every pixel that it touches."""
        x0, y0, x1, y1 = region.box
        # A float image, so that one pixel of a large block leaves more than 0.
        whole = np.zeros(self.size, np.float32)
        whole[y0:y1, x0:x1] = region.crop
        part = cv2.resize(whole, self.grey.shape[::-1], interpolation=cv2.INTER_AREA)
        return (part > 0).astype(np.uint8) * 255

    def carried(self, region: Region, small: NDArray[np.uint8]) -> tuple[Region | None, float]:
        """A region of this frame in the newest one, and the fraction of its pixels that pass the check.

        The region is None if nothing of it is seen there.

        Args:
            small: its footprint.
        """
        there = _grid(self.grey.shape) + self.back
        moved = cv2.remap(small, there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderValue=0)
        touched = (moved > 0) & (self.uncovered == 0)
        box = mask_box(touched)
        if box is None:
            return None, 0.0
        return _warped(region, self, box), float(self.passed[touched].mean())


class OpticalFlow:
    """Computes the flow of key frames. For one thread at a time."""

    def __init__(self) -> None:
        # Both the distributions' OpenCV 4 and OpenCV 5 have this name.
        self._dis = cv2.DISOpticalFlow_create(  # type: ignore[attr-defined]
            cv2.DISOPTICAL_FLOW_PRESET_FAST
        )
        # The preset MEDIUM's scale, because small objects move, too; fewer refinements lose nothing here.
        self._dis.setFinestScale(1)
        self._dis.setVariationalRefinementIterations(1)

    def reach(self, key_frame: KeyFrame, pictures: Mapping[int, Grey], colour: Colour) -> None:
        """Extend a key frame's flow to the newest frame.

        Args:
            pictures: reduced frames by increasing stamp, the newest and possible steps on the way to it.
            colour: the newest.
        """
        newest = max(pictures)
        if key_frame.broken or key_frame.reached == newest:
            return
        between = [s for s in pictures if key_frame.reached < s]
        steps = min(STONES, -(-len(between) // STRIDE))
        for number in range(1, steps + 1):
            # A pixel of the key frame keeps its motion, so the flow from there follows fast objects.
            grey = pictures[between[-1 - len(between) * (steps - number) // steps]]
            forth = self._dis.calc(key_frame.grey, grey, key_frame.forth)
            key_frame.forth = np.asarray(forth, np.float32)
        back = self._dis.calc(grey, key_frame.grey, _turned_round(key_frame.forth))
        key_frame.back = np.asarray(back, np.float32)
        key_frame.reached = newest
        _check(key_frame, colour)
        if key_frame.passed.mean() < CUT:
            key_frame.broken = SCENE_CUT


def reduced(rgb: NDArray[np.uint8]) -> Colour:
    """A frame, uint8 [H, W, 3] RGB, as flow is computed and checked on: the longer side has LONG_SIDE."""
    height, width = rgb.shape[:2]
    scale = LONG_SIDE / max(height, width)
    size = (max(SHORTEST_SIDE, round(width * scale)), max(SHORTEST_SIDE, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(rgb, size, interpolation=way)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb), np.uint8)


def greyscale(colour: Colour) -> Grey:
    """The brightness, which the flow is computed from."""
    return np.ascontiguousarray(colour[..., 0])


def _warped(region: Region, key_frame: KeyFrame, box: Box) -> Region | None:
    """A region of the key frame in the newest frame, where its reduced mask has the box `box`."""
    (height, width), (h, w) = key_frame.size, key_frame.grey.shape
    sx, sy = width / w, height / h
    x0, y0 = max(0, int((box[0] - 2) * sx)), max(0, int((box[1] - 2) * sy))
    x1, y1 = min(width, int((box[2] + 2) * sx) + 1), min(height, int((box[3] + 2) * sy) + 1)
    x, y = np.meshgrid(
        (np.arange(x0, x1, dtype=np.float32) + 0.5) / sx - 0.5,
        (np.arange(y0, y1, dtype=np.float32) + 0.5) / sy - 0.5,
    )
    flow = _sample(key_frame.back, x, y)
    left, top = region.box[:2]
    mask = cv2.remap(
        region.crop.astype(np.uint8) * 255,
        ((x + flow[..., 0] + 0.5) * sx - 0.5 - left).astype(np.float32),
        ((y + flow[..., 1] + 0.5) * sy - 0.5 - top).astype(np.float32),
        cv2.INTER_LINEAR,
        borderValue=0,
    )
    found = (mask > 127) & (_sample(key_frame.uncovered, x, y) < 128)
    if not found.any():
        return None
    return Region.within((x0, y0, x1, y1), found)


def _check(key_frame: KeyFrame, colour: Colour) -> None:
    """Check which pixels of the newest frame are consistent with the flow, testing every second one."""
    height, width = shape = colour.shape[:2]
    back = key_frame.back[::2, ::2]
    there = _grid(shape)[::2, ::2] + back
    x, y = there[..., 0], there[..., 1]
    again = _sample(key_frame.forth, x, y) + back
    missed = again[..., 0] ** 2 + again[..., 1] ** 2 >= MEETS**2
    change = colour[::2, ::2].astype(np.float32) - _sample(key_frame.colour, x, y)
    if not missed.all():
        change[..., 1:] -= np.median(change[~missed][:, 1:], 0)
    differ = np.abs(change).max(-1) >= ALIKE
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    key_frame.passed = _whole(~(missed | differ | outside), shape) > 0
    key_frame.uncovered = _whole(missed & differ, shape) * np.uint8(255)


def _whole(part: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    size = (shape[1], shape[0])
    whole = cv2.resize(part.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(whole, np.uint8)


def _turned_round(flow: Flow) -> Flow:
    """The approximate inverse of a flow, as the initial value of a better one.

    If several pixels arrive at one place, one that moves unlike most of the frame has priority: it is more
    often in front. If none arrives, the neighbours' mean is used.
    """
    height, width = flow.shape[:2]
    part = flow[2::4, 2::4]
    rows, columns = part.shape[:2]
    there = np.rint(_grid(part.shape) + part / 4).astype(np.int32)
    x, y = there[..., 0], there[..., 1]
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    usual = np.median(part.reshape(-1, 2), 0).astype(np.float32)
    unlike = inside & (np.abs(part - usual).max(-1) > 1.0)
    turned, filled = np.zeros_like(part), np.zeros((rows, columns), np.float32)
    for some in (inside, unlike):
        turned[y[some], x[some]] = -part[some]
    filled[y[inside], x[inside]] = 1.0
    near, weight = cv2.blur(turned, (5, 5)), cv2.blur(filled, (5, 5))
    mean = np.where(weight[..., None] > 0, near / np.maximum(weight, 1e-6)[..., None], -usual)
    whole = np.where(filled[..., None] > 0, turned, mean).astype(np.float32)
    return np.asarray(cv2.resize(whole, (width, height)), np.float32)


def _sample(values: NDArray, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray:
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=16)
def _grid(shape: tuple[int, ...]) -> Flow:
    """Each pixel's own x and y, [h, w, 2]."""
    x, y = np.meshgrid(np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32))
    return np.stack([x, y], -1)
