"""The state of one visitor of `gsva app`: the open image or bag, its answer, and the labelled frames.

No user interface and no ROS: the page (`app_page`) displays this state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsva_ros.answer import Answer, Segmenter, Slot
from gsva_ros.asking import ask_possible
from gsva_ros.bags.bag import Bag
from gsva_ros.conversions import MessageError, file_rgb
from gsva_ros.errors import InputError
from gsva_ros.overlay import Target, fitted, poster
from gsva_ros.overlay.target import Shape
from gsva_ros.stamps import SECOND
from gsva_ros.truth import Referring

BAG_SUFFIXES = (".mcap", ".db3", ".bag")  # of ROS 1, which `Bag` refuses
CATEGORY = "labelled"
#: Pixels of the longer side of an image that is displayed; masks are saved at the image's own size.
LONGEST = 1600

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Label(Enum):
    """A person's verdict on an answered expression."""

    RIGHT = "answer is right"
    ABSENT = "not in the image"
    PAINTED = "mask painted"


@dataclass(frozen=True)
class Correction:
    """A person's correction of one slot.

    referents: number of objects that are meant. mask: bool [H, W] of them; None: there are none.
    """

    label: Label
    referents: int = 1
    mask: Mask | None = None


@dataclass
class Session:
    """One visitor's session.

    source: the open file. number: the frame of `topic` that is shown.
    rgb: uint8 [H, W, 3]. problem: why the open bag shows no image. frame: the engine's encoding of rgb,
    created at the first request. labelled: frames with their ground truth, by origin. failed: the
    name of the event whose problem is shown.
    """

    source: Path | None = None
    name: str = ""
    rgb: Picture | None = None
    problem: str = ""
    frame: Any = None
    answer: Answer | None = None
    bag: Bag | None = None
    topic: str = ""
    number: int = 0
    corrections: dict[int, Correction] = field(default_factory=dict)
    #: The slot in the editor, its threshold, and the size of the editor's picture.
    painting: tuple[int, float, Shape] | None = None
    labelled: dict[str, tuple[Picture, list[Referring]]] = field(default_factory=dict)
    failed: str = ""

    def open(self, path: Path) -> None:
        """Open an image, or a bag at the first frame of the first camera with a displayable frame.

        Raises:
            InputError: it is neither; says what is wrong.
        """
        if path.is_dir() or path.suffix.lower() in BAG_SUFFIXES:
            try:
                bag = Bag(path)
            except InputError as error:
                raise InputError(_named(str(error), path)) from error
            if not any(bag.frames(topic) for topic in bag.image_topics):
                told = f"{path.name}: no image in this bag; {bag.image_choice}"
                bag.close()
                raise InputError(_named("; ".join([told, *bag.problems]), path))
            self.close()
            self.source, self.bag = path, bag
            for topic in bag.image_topics:
                if bag.frames(topic):
                    self.show(topic, 0)
                if self.rgb is not None:  # a depth image cannot be shown
                    break
            return
        data = path.read_bytes()
        try:
            rgb = file_rgb(data, path.suffix)
        except MessageError as error:
            raise InputError(
                f"{path.name}: neither an image nor a bag ({error.problem}); "
                "open a .png, .jpg, .mcap or .db3 file"
            ) from error
        self.close()
        self.source = path
        self._take(path.name, rgb)

    def show(self, topic: str, number: int) -> None:
        """Show the `number`-th frame of a topic of the open bag; `problem` says why one cannot be shown.

        Raises:
            InputError: no such frame.
        """
        assert self.bag is not None
        stamps = list(self.bag.frames(topic))
        if not 0 <= number < len(stamps):
            raise InputError(f"{self.bag.path.name}: {topic} has {len(stamps)} frames")
        stamp = stamps[number]
        self.topic, self.number = topic, number
        rgb, problem = None, ""
        try:
            rgb = self.bag.rgb(topic, stamp)
        except InputError as error:
            problem = _named(str(error), self.bag.path)
        self._take(f"{topic} at {stamp / SECOND:.3f} s", rgb, problem)

    def left_out(self) -> list[str]:
        """What cannot be read in the open bag."""
        return [_named(problem, self.bag.path) for problem in self.bag.problems] if self.bag else []

    def frames(self) -> int:
        """Number of frames of the shown topic; 0 without a bag."""
        return len(self.bag.frames(self.topic)) if self.bag else 0

    def close(self) -> None:
        """Discard the image and close the bag; labelled frames are kept."""
        if self.bag is not None:
            self.bag.close()
        self.source, self.bag, self.topic, self.number = None, None, "", 0
        self._take("", None)

    def _take(self, name: str, rgb: Picture | None, problem: str = "") -> None:
        self.name, self.rgb, self.problem = name, rgb, problem
        self.frame = None
        self._take_answer(None)

    def _take_answer(self, answer: Answer | None) -> None:
        self.answer, self.corrections, self.painting = answer, {}, None

    def look(self, engine: Segmenter[Any]) -> Any:
        """The engine's encoding of the image, created once.

        Raises:
            InputError: there is no image, it cannot be encoded, or another one was opened meanwhile.
        """
        rgb, frame = self.rgb, self.frame
        if rgb is None:
            raise InputError(self.problem or "no image is open: open one first")
        if frame is None:
            try:
                frame = engine.encode(rgb)
            except ValueError as error:
                raise InputError(f"{self.name}: {error}") from error
            self._check_open(rgb)
            self.frame = frame
        return frame

    def _check_open(self, rgb: Picture | None) -> None:
        """Reject an answer on `rgb` if the visitor opened another image while the engine was working."""
        if self.rgb is not rgb:
            raise InputError("another image was opened meanwhile: ask again")

    def segment(self, engine: Segmenter[Any], expressions: Sequence[str]) -> None:
        """Ask for expressions. Rejected ones get masks, too, so that a threshold can be chosen afterwards.

        One that cannot be asked, for example because it is too long, gets a slot with that fault.

        Raises:
            InputError: as `look`.
        """
        rgb, frame = self.rgb, self.look(engine)
        assert rgb is not None, "otherwise look raises"
        answer = _segmented(engine, frame, expressions, rgb.shape[:2])
        self._check_open(rgb)
        self._take_answer(answer)

    def ask(self, engine: Segmenter[Any], text: str, threshold: float) -> None:
        """Let the model answer a free-form request, deciding at `threshold`.

        Raises:
            ExpressionError: it cannot be asked.
            InputError: as `look`.
        """
        rgb, frame = self.rgb, self.look(engine)
        answer = engine.ask(frame, text, threshold=threshold)
        self._check_open(rgb)
        self._take_answer(answer)

    def slots(self, threshold: float) -> list[Slot]:
        """The answer's slots, decided at a threshold without running the model."""
        if self.answer is None:
            return []
        return [slot.at(threshold) for slot in self.answer.slots]

    def overlay(self, threshold: float, shown: Sequence[int]) -> Picture | None:
        """The image with the shown slots' masks and rejections drawn on it; None without an image."""
        if self.rgb is None:
            return None
        targets = [
            Target.of(number, slot)
            for number, slot in enumerate(self.slots(threshold))
            if not slot.fault and number in shown
        ]
        return poster(*fitted(self.rgb, targets, LONGEST))

    # Labels

    def check_answered(self, slot: int) -> None:
        """Raise InputError if there is no such slot, or it is at fault: neither can be labelled."""
        if self.answer is None or not 0 <= slot < len(self.answer.slots):
            raise InputError("no such answer: ask first")
        if fault := self.answer.slots[slot].fault:
            raise InputError(f"there is no answer to label: {fault}")

    def correct(self, slot: int, correction: Correction, threshold: float) -> None:
        """Record a correction of a slot as decided at `threshold`, which may be moved afterwards.

        Raises:
            InputError: the slot has no answer; the painted mask is empty, or differs in size from the
                image.
        """
        self.check_answered(slot)
        assert self.rgb is not None, "it was answered"
        if correction.label is Label.PAINTED:
            if correction.mask is None or not correction.mask.any():
                raise InputError(
                    "nothing is painted: paint the object, or label it as not in the image"
                )
            if correction.mask.shape != self.rgb.shape[:2]:
                raise InputError("the painted mask differs in size from the image: paint it again")
        if correction.label is Label.RIGHT:
            correction = replace(correction, mask=self.slots(threshold)[slot].mask)
        self.corrections[slot] = correction

    def keep(self) -> int:
        """Keep the frame with its labels for the bag; the same frame again replaces the older one.

        Returns:
            The number of labelled expressions.

        Raises:
            InputError: there are none, or one is labelled in two ways.
        """
        if self.rgb is None or self.answer is None or not self.corrections:
            raise InputError("no expression of this frame is labelled: label one first")
        asked, size = self.answer.slots, self.rgb.shape[:2]
        truth = [_truth(asked[n].expression, c, size) for n, c in self.corrections.items()]
        said: dict[str, Referring] = {}
        for each in truth:
            other = said.setdefault(each.expression, each)
            assert other.mask is not None, "see `_truth`"
            assert each.mask is not None
            if other.referents != each.referents or not np.array_equal(other.mask, each.mask):
                raise InputError(f"{each.expression!r} is labelled in two ways: give it one label")
        self.labelled[self._key(self.rgb)] = (self.rgb, truth)
        return len(truth)

    def kept(self) -> int:
        """The number of labels that the shown frame was kept with; 0: it was not kept."""
        if self.rgb is None or not self.labelled:
            return 0
        _, truth = self.labelled.get(self._key(self.rgb), (None, []))
        return len(truth)

    def _key(self, rgb: Picture) -> str:
        """The key of the shown frame in `labelled`."""
        # Images in different folders may share a name, and frames of a bag a displayed time.
        pixels = hashlib.sha256(rgb.tobytes()).hexdigest()
        return f"{self.bag.path if self.bag else ''} {self.name} {pixels}"


def _segmented(
    engine: Segmenter[Any], frame: Any, expressions: Sequence[str], size: tuple[int, int]
) -> Answer:
    """The engine's answer, with a slot at fault for each expression that cannot be asked.

    Args:
        size: height and width of the frame.
    """
    ask = partial(engine.segment, frame, mask_rejected=True)
    answer, _, faults = ask_possible(ask, expressions)
    slots = list(answer.slots)
    for number, fault in sorted(faults.items()):
        slots.insert(number, Slot(expressions[number], 0.0, size=size, fault=fault))
    return replace(answer, slots=slots)


def _named(message: str, path: Path) -> str:
    """A message with a file's name instead of its path: an upload's folder means nothing to its sender."""
    return message.replace(str(path), path.name)


def _truth(expression: str, correction: Correction, size: tuple[int, int]) -> Referring:
    """The ground truth given by a labelled expression; an absent object has an empty mask."""
    if correction.mask is None:
        return Referring(expression, CATEGORY, 0, np.zeros(size, bool))
    return Referring(expression, CATEGORY, correction.referents, correction.mask)
