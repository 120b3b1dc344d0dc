"""Carries masks from frame to frame by dense optical flow, between two answers of a slow model.

Every mask is carried directly from the frame that the model answered on (its key frame) to the newest one,
never from one carried mask to the next, so that errors do not accumulate. `flow` computes and checks the
flow between the two.

It knows no model and no request: whose masks they are is the caller's key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .flow import Colour, Grey, KeyFrame, OpticalFlow, greyscale, reduced
from .masks import Region, iou

#: Reduced frames kept as intermediate steps from a late answer's key frame: ten seconds at 30 Hz, 23 MB.
KEPT = 300
#: Below this fraction of its pixels that pass the check of the flow, a mask is lost.
LOST = 0.3
#: Below this fraction of its area in the key frame, an object counts as gone.
LEFT = 0.05
#: Masks of an expression that overlap this much (IoU) are one instance.
SAME = 0.3

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
    #: Once lost, it stays so until the next answer: what looks like it later may be another thing.
    lost: Carried | None = None


@dataclass(eq=False)
class _Group:
    """One answer's instances by their slot and expression, and its key frame."""

    key_frame: KeyFrame
    instances: Mapping[Hashable, list[_Instance]]


class Tracker:
    """One camera's newest frame, and what is carried onto it. For one thread at a time.

    Args:
        ids: supplies the instances' ids; shared if several cameras' ids must differ.
    """

    def __init__(self, ids: Iterator[int] | None = None) -> None:
        self._ids = ids if ids is not None else count(1)
        self._pictures: OrderedDict[int, Grey] = OrderedDict()  # by stamp, newest last
        self._colour: Colour = np.zeros((0, 0, 3), np.uint8)  # of the newest picture
        self._size = (0, 0)
        self._groups: dict[Hashable, _Group] = {}
        self._flow = OpticalFlow()

    def observe(self, stamp: int, rgb: NDArray[np.uint8]) -> None:
        """Accept the newest frame, uint8 [H, W, 3] RGB, stamped in nanoseconds.

        If its size differs from the previous frame's, or its stamp is not later, everything is lost until
        the model's next answer.
        """
        size, colour = (rgb.shape[0], rgb.shape[1]), reduced(rgb)
        if self._shows(stamp, colour):
            return
        why = ""
        if self._pictures and size != self._size:
            why = RESIZED
        elif self._pictures and stamp <= self._newest:
            why = BACKWARDS
        if why:
            self._pictures.clear()
            for group in self._groups.values():
                group.key_frame.broken = why
        self._size, self._colour = size, colour
        self._pictures[stamp] = greyscale(colour)
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
        newest frame, overlaps one carried there from the earlier answer under the same key, unless that
        answer's frame had another size.
        """
        if not self._pictures:
            self.observe(stamp, rgb)
        before = self._groups.get(name)
        if before is not None:
            self._carry_all(before)
        key_frame = self._key_frame(stamp, rgb)
        if before is not None and before.key_frame.size != key_frame.size:
            before = None  # its places are in other pixels
        group = _Group(
            key_frame,
            {key: [_instance(each, key_frame) for each in some] for key, some in regions.items()},
        )
        self._carry_all(group)
        for key, instances in group.instances.items():
            old = [] if before is None else before.instances.get(key, [])
            _name(instances, old, self._ids)
        self._groups[name] = group

    def carried(self, name: Hashable) -> dict[Hashable, list[Carried]]:
        """The last answer's instances in the newest frame, by key; KeyError if the name has no answer."""
        return self._carry_all(self._groups[name])

    def unrecognised(self, name: Hashable) -> str:
        """Why the newest frame cannot be related to the last answer's; "": it can."""
        key_frame = self._groups[name].key_frame
        self._flow.reach(key_frame, self._pictures, self._colour)
        return key_frame.broken

    def forget(self, name: Hashable) -> None:
        """Drop a name's answer, if there is one."""
        self._groups.pop(name, None)

    def _shows(self, stamp: int, colour: Colour) -> bool:
        """Whether this is the newest frame."""
        if not self._pictures or stamp != self._newest:
            return False
        return np.array_equal(colour, self._colour)

    @property
    def _newest(self) -> int:
        return next(reversed(self._pictures))

    def _key_frame(self, stamp: int, rgb: NDArray[np.uint8]) -> KeyFrame:
        """The key frame with this picture, which another answer may have brought already."""
        size, colour = (rgb.shape[0], rgb.shape[1]), reduced(rgb)
        for known in (group.key_frame for group in self._groups.values()):
            if known.stamp == stamp and not known.broken and known.shows(size, colour):
                return known
        new = KeyFrame(stamp, colour, size, stamp)
        if size != self._size:
            new.broken = RESIZED
        elif stamp > self._newest:
            self.observe(stamp, rgb)
        elif stamp == self._newest and not self._shows(stamp, colour):
            new.broken = BACKWARDS
        return new

    def _carry_all(self, group: _Group) -> dict[Hashable, list[Carried]]:
        """Carry an answer's instances to the newest frame; keep where each was seen, and what is lost."""
        found = {}
        for key, instances in group.instances.items():
            found[key] = [self._carry(each, group.key_frame) for each in instances]
            for each, now in zip(instances, found[key], strict=True):
                each.last = now.region or each.last
                each.lost = now if now.region is None else None
        return found

    def _carry(self, instance: _Instance, key_frame: KeyFrame) -> Carried:
        if instance.lost:
            return replace(instance.lost, id=instance.id)
        self._flow.reach(key_frame, self._pictures, self._colour)
        if key_frame.broken:
            return Carried(instance.id, None, 0.0, key_frame.broken)
        if key_frame.reached == key_frame.stamp:
            return Carried(instance.id, instance.region, 1.0)
        region, confidence = key_frame.carried(instance.region, instance.small)
        if region is None or region.crop.sum() < LEFT * instance.region.crop.sum():
            return Carried(instance.id, None, 0.0, HIDDEN)
        if confidence < LOST:
            return Carried(instance.id, None, confidence, DRIFTED.format(confidence))
        return Carried(instance.id, region, confidence)


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


def _instance(region: Region, key_frame: KeyFrame) -> _Instance:
    """An instance without an id, seen in its key frame."""
    return _Instance(0, region, key_frame.footprint(region), region)
