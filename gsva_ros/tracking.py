"""Carries masks from frame to frame by dense optical flow, between two answers of a slow model.

Every mask is carried directly from the frame that the model answered on (its key frame) to the newest one,
never from one carried mask to the next, so that errors do not accumulate: the flow between the two is
initialised with the previous one. What is carried is checked: forward and backward flow have to agree, and
the pixels have to look alike.

It knows no model and no request: whose masks they are is the caller's key.

Sources: DIS flow (Kroeger et al., ECCV 2016) as in OpenCV; the forward-backward check of Sundaram, Brox and
Keutzer (ECCV 2010).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .masks import Box, Region, iou, mask_box

#: Longer side, and minimum of the shorter side, of the reduced frames that flow is computed on, pixels.
LONG_SIDE, SHORTEST_SIDE = 320, 32
#: Reduced frames kept as intermediate steps from a late answer's key frame: ten seconds at 30 Hz, 23 MB.
KEPT = 300
#: Frames between two intermediate steps, and the maximum number of steps.
STRIDE, STONES = 4, 16
#: A pixel passes the check if the forward-backward error is below the first, in reduced pixels, and its
#: brightness (0 to 255) differs by less than the second.
MEETS, ALIKE = 3.0, 25.0
#: Below this fraction of pixels that pass, a mask is lost; below this fraction of the whole frame, all are.
LOST, CUT = 0.3, 0.3
#: Below this fraction of its area in the key frame, an object counts as gone.
LEFT = 0.05
#: Masks of an expression that overlap this much (IoU) are one instance.
SAME = 0.3

Grey = NDArray[np.uint8]
#: [h, w, 2]: a pixel's position in the other frame minus its position in this one.
Flow = NDArray[np.float32]

SCENE_CUT = "the image has changed beyond recognition since the model's answer"
RESIZED = "the image's size has changed since the model's answer"
BACKWARDS = "the image stamps have not increased since the model's answer"
HIDDEN = "it has left the image or been hidden since the model's answer"
DRIFTED = "confidence in its carried mask has dropped to {:.2f} since the model's answer"


@dataclass(frozen=True, eq=False)
class Carried:
    """An instance in the newest frame.

    Attributes:
        id: the same in all frames, and never given to another instance.
        region: None if it is lost; `lost` then says why.
        confidence: fraction of its pixels that pass the check, 0 to 1; 1 in its key frame.
    """

    id: int
    region: Region | None
    confidence: float
    lost: str = ""


@dataclass(eq=False)
class _Instance:
    id: int
    region: Region
    small: NDArray[np.uint8]  # 0 or 255, at the reduced frame's size
    last: Region  # where it was last seen


@dataclass(eq=False)
class _Group:
    """One answer's instances by their slot and expression, and its key frame."""

    key_frame: _KeyFrame
    instances: Mapping[Hashable, list[_Instance]]


@dataclass(eq=False)
class _KeyFrame:
    """A key frame, and the flow between it and the newest frame."""

    stamp: int
    grey: Grey
    size: tuple[int, int]  # height, width of the full image
    reached: int  # stamp of the frame that the flow leads to
    back: Flow = field(init=False)  # newest -> key
    forth: Flow = field(init=False)  # key -> newest
    passed: NDArray[np.bool_] = field(init=False)  # pixels of the newest that pass the check
    #: 255 where the newest frame shows what the key frame does not.
    uncovered: NDArray[np.uint8] = field(init=False)
    broken: str = ""  # why nothing can be carried from it any more

    def __post_init__(self) -> None:
        self.back = np.zeros((*self.grey.shape, 2), np.float32)
        self.forth = np.zeros_like(self.back)
        self.passed = np.ones(self.grey.shape, bool)
        self.uncovered = np.zeros(self.grey.shape, np.uint8)

    def shows(self, size: tuple[int, int], grey: Grey) -> bool:
        """Whether this is its picture: others may have the same stamp."""
        return self.size == size and np.array_equal(self.grey, grey)


class Tracker:
    """One camera's newest frame, and what is carried onto it. For one thread at a time.

    Args:
        ids: supplies the instances' ids; shared if several cameras' ids must differ.
    """

    def __init__(self, ids: Iterator[int] | None = None) -> None:
        self._ids = ids if ids is not None else count(1)
        self._pictures: OrderedDict[int, Grey] = OrderedDict()  # by stamp, newest last
        self._size = (0, 0)
        self._key_frames: dict[int, _KeyFrame] = {}
        self._groups: dict[Hashable, _Group] = {}
        # Both the distributions' OpenCV 4 and OpenCV 5 have this name.
        self._dis = cv2.DISOpticalFlow_create(  # type: ignore[attr-defined]
            cv2.DISOPTICAL_FLOW_PRESET_FAST
        )
        # The preset MEDIUM's scale, because small objects move, too; fewer refinements lose nothing here.
        self._dis.setFinestScale(1)
        self._dis.setVariationalRefinementIterations(1)

    def observe(self, stamp: int, rgb: NDArray[np.uint8]) -> None:
        """Accept the newest frame, uint8 [H, W, 3] RGB, stamped in nanoseconds.

        If its size differs from the previous frame's, or its stamp is not later, everything is lost until
        the model's next answer.
        """
        size, grey = (rgb.shape[0], rgb.shape[1]), reduced(rgb)
        if self._shows(stamp, grey):
            return
        why = ""
        if self._pictures and size != self._size:
            why = RESIZED
        elif self._pictures and stamp <= self._newest:
            why = BACKWARDS
        if why:
            self._pictures.clear()
            for group in self._groups.values():
                group.key_frame.broken = group.key_frame.broken or why
        self._size = size
        self._pictures[stamp] = grey
        while len(self._pictures) > KEPT:
            self._pictures.popitem(last=False)

    def answer(
        self,
        name: Hashable,
        stamp: int,
        rgb: NDArray[np.uint8],
        regions: Mapping[Any, Sequence[Region]],
    ) -> None:
        """Accept the model's answer to `name` on a frame, which may be older than the newest.

        It replaces the earlier answer to that name. An instance keeps its id if its mask, carried to the
        newest frame, overlaps one carried there from the earlier answer under the same key.
        """
        if not self._pictures:
            self.observe(stamp, rgb)
        before = self._groups.get(name)
        if before is not None:
            self._carry_all(before)
        key_frame = self._key_frame(stamp, rgb)
        group = _Group(
            key_frame,
            {key: [_instance(each, key_frame) for each in some] for key, some in regions.items()},
        )
        self._carry_all(group)
        for key, instances in group.instances.items():
            old = [] if before is None else before.instances.get(key, [])
            _name(instances, old, self._ids)
        self._groups[name] = group
        self._clean()

    def carried(self, name: Hashable) -> dict[Hashable, list[Carried]]:
        """The last answer's instances in the newest frame, by key; KeyError if the name has no answer."""
        return self._carry_all(self._groups[name])

    def unrecognised(self, name: Hashable) -> str:
        """Why the newest frame cannot be related to the last answer's; "": it can."""
        key_frame = self._groups[name].key_frame
        self._reach(key_frame)
        return key_frame.broken

    def forget(self, name: Hashable) -> None:
        """Drop a name's answer, if there is one."""
        self._groups.pop(name, None)
        self._clean()

    def __len__(self) -> int:
        """Number of names with an answer."""
        return len(self._groups)

    def _shows(self, stamp: int, grey: Grey) -> bool:
        """Whether this is the newest frame."""
        if not self._pictures or stamp != self._newest:
            return False
        return np.array_equal(grey, self._pictures[stamp])

    @property
    def _newest(self) -> int:
        return next(reversed(self._pictures))

    def _clean(self) -> None:
        used = {id(group.key_frame) for group in self._groups.values()}
        self._key_frames = {
            stamp: each for stamp, each in self._key_frames.items() if id(each) in used
        }

    def _key_frame(self, stamp: int, rgb: NDArray[np.uint8]) -> _KeyFrame:
        """The key frame with this picture, which another answer may have brought already."""
        size, grey = (rgb.shape[0], rgb.shape[1]), reduced(rgb)
        known = self._key_frames.get(stamp)
        if known is not None and not known.broken and known.shows(size, grey):
            return known
        new = self._key_frames[stamp] = _KeyFrame(stamp, grey, size, stamp)
        if size != self._size:
            new.broken = RESIZED
        elif stamp > self._newest:
            self.observe(stamp, rgb)
        elif stamp == self._newest and not self._shows(stamp, grey):
            new.broken = BACKWARDS
        return new

    def _reach(self, key_frame: _KeyFrame) -> None:
        """Extend a key frame's flow to the newest frame."""
        if key_frame.broken or key_frame.reached == self._newest:
            return
        between = [s for s in self._pictures if key_frame.reached < s]
        steps = min(STONES, -(-len(between) // STRIDE))
        for number in range(1, steps + 1):
            # A pixel of the key frame keeps its motion, so the flow from there follows fast objects.
            grey = self._pictures[between[-1 - len(between) * (steps - number) // steps]]
            forth = self._dis.calc(key_frame.grey, grey, key_frame.forth)
            key_frame.forth = np.asarray(forth, np.float32)
        back = self._dis.calc(grey, key_frame.grey, _turned_round(key_frame.forth))
        key_frame.back = np.asarray(back, np.float32)
        key_frame.reached = self._newest
        _check(key_frame, grey)
        if key_frame.passed.mean() < CUT:
            key_frame.broken = SCENE_CUT

    def _carry_all(self, group: _Group) -> dict[Hashable, list[Carried]]:
        """Carry an answer's instances to the newest frame, and keep where each was seen."""
        found = {}
        for key, instances in group.instances.items():
            found[key] = [self._carry(each, group.key_frame) for each in instances]
            for each, now in zip(instances, found[key], strict=True):
                each.last = now.region or each.last
        return found

    def _carry(self, instance: _Instance, key_frame: _KeyFrame) -> Carried:
        self._reach(key_frame)
        if key_frame.broken:
            return Carried(instance.id, None, 0.0, key_frame.broken)
        if key_frame.reached == key_frame.stamp:
            return Carried(instance.id, instance.region, 1.0)
        there = _grid(key_frame.grey.shape) + key_frame.back
        small = cv2.remap(
            instance.small, there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderValue=0
        )
        touched = (small > 0) & (key_frame.uncovered == 0)
        box = mask_box(touched)
        region = None if box is None else _warped(instance.region, key_frame, box)
        if region is None or region.crop.sum() < LEFT * instance.region.crop.sum():
            return Carried(instance.id, None, 0.0, HIDDEN)
        confidence = float(key_frame.passed[touched].mean())
        if confidence < LOST:
            return Carried(instance.id, None, confidence, DRIFTED.format(confidence))
        return Carried(instance.id, region, confidence)


def reduced(rgb: NDArray[np.uint8]) -> Grey:
    """The greyscale image that flow is computed on, uint8; its longer side is LONG_SIDE pixels."""
    height, width = rgb.shape[:2]
    scale = LONG_SIDE / max(height, width)
    size = (max(SHORTEST_SIDE, round(width * scale)), max(SHORTEST_SIDE, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(rgb, size, interpolation=way)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)


def _name(new: Sequence[_Instance], old: Sequence[_Instance], ids: Iterator[int]) -> None:
    """Give new instances the ids of the old ones they overlap most, each id once, or else fresh ids."""
    pairs = [(iou(n.last, o.last), i, j) for i, n in enumerate(new) for j, o in enumerate(old)]
    taken: set[int] = set()
    for overlap, i, j in sorted(pairs, reverse=True):
        if overlap >= SAME and not new[i].id and j not in taken:
            new[i].id = old[j].id
            taken.add(j)
    for each in new:
        each.id = each.id or next(ids)


def _instance(region: Region, key_frame: _KeyFrame) -> _Instance:
    """An instance without an id, seen in its key frame."""
    small = _footprint(region, key_frame.size, key_frame.grey.shape)
    return _Instance(0, region, small, region)


def _footprint(region: Region, size: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A mask in the reduced frame of `shape`, 0 or 255: every pixel that it touches."""
    x0, y0, x1, y1 = region.box
    whole = np.zeros(size, np.float32)  # so that one pixel of a large block leaves more than 0
    whole[y0:y1, x0:x1] = region.crop
    part = cv2.resize(whole, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return (part > 0).astype(np.uint8) * 255


def _warped(region: Region, key_frame: _KeyFrame, box: Box) -> Region | None:
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


def _check(key_frame: _KeyFrame, grey: Grey) -> None:
    """Check which pixels of the newest frame are consistent with the flow, testing every second one."""
    height, width = grey.shape
    back = key_frame.back[::2, ::2]
    there = _grid(grey.shape)[::2, ::2] + back
    x, y = there[..., 0], there[..., 1]
    again = _sample(key_frame.forth, x, y) + back
    missed = again[..., 0] ** 2 + again[..., 1] ** 2 >= MEETS**2
    differ = cv2.absdiff(_sample(key_frame.grey, x, y), grey[::2, ::2]) >= ALIKE
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    key_frame.passed = _whole(~(missed | differ | outside), grey.shape) > 0
    key_frame.uncovered = _whole(missed & differ, grey.shape) * np.uint8(255)


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
