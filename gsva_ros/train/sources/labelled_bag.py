"""A labelled bag: camera frames with expressions that are present or absent.

`gsva record-truth` adds the labels to a bag. They do not say which other things are in a frame, so further
absent expressions are generated with care (`Negatives`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from ...bags.bag import Bag
from ...errors import InputError, tell_left_out
from ...truth import Referring, of_camera, read_truth
from ..config import Share
from .negatives import Known, Negatives
from .sample import Segments


class LabelledBag:
    """Frames of a bag with present and absent expressions."""

    def __init__(
        self,
        path: str,
        truth: str | None = None,
        topic: str | None = None,
        per_image: PositiveInt = 8,
        absent: Share = 0.4,
    ) -> None:
        """Open the bag; frames of the truth that it lacks, cannot give or has in another size are left out.

        Args:
            path: a rosbag2 folder, or an mcap file.
            truth: COCO-style JSON; the bag's own if omitted.
            topic: the camera, if the truth is of several or names another topic than the bag.
            per_image: maximum number of expressions of a frame in one sample.
            absent: minimum fraction of absent expressions in a sample, 0 to 1.

        Raises:
            InputError: the bag or its truth cannot be used, or no frame has an absent expression, although
                `absent` asks for some.
        """
        self._bag = Bag(Path(path))
        known = read_truth(Path(truth)) if truth else self._bag.truth()
        known = of_camera(known, topic, self._bag.image_topics)
        self._per_image, self._absent = per_image, absent
        self._frames = [
            frame
            for frame in known
            if frame.annotations and self._bag.is_usable(frame.topic, frame.stamp, frame.size)
        ]
        if not self._frames:
            reasons = "; ".join(self._bag.problems[:3])
            raise InputError(f"{path}: no frame with truth; see `gsva record-truth`. {reasons}")
        tell_left_out(self._bag.problems)
        self._negatives = Negatives(
            [
                [Known(a.caption, a.referents) for a in frame.annotations if a.referents]
                for frame in self._frames
            ]
        )
        self._tell_without_absent(truth or path)

    def _tell_without_absent(self, place: str) -> None:
        """Print how many frames have no absent expression; InputError if that is all, against `absent`."""
        count = sum(
            all(a.referents for a in frame.annotations) and not self._negatives.has_any(number)
            for number, frame in enumerate(self._frames)
        )
        if not count:
            return
        what = (
            f"{place}: {count} of {len(self._frames)} frames have no absent expression: also label frames "
            'without these things (referents 0), and call things by their kinds (a "tool" may be any '
            "thing), or the model learns to find them everywhere"
        )
        if self._absent and count == len(self._frames):
            raise InputError(f"{what}; absent: 0 trains it nevertheless")
        print(what, file=sys.stderr)

    def expressions(self) -> Iterable[str]:
        """All annotated expressions."""
        return {a.caption for frame in self._frames for a in frame.annotations}

    def draw(self, rng: np.random.Generator) -> Segments:
        """A frame with some present and some absent expressions."""
        number = int(rng.integers(len(self._frames)))
        frame = self._frames[number]
        rgb = self._bag.rgb(frame.topic, frame.stamp)
        present: list[Referring] = []
        absent: list[Referring] = []
        for each in frame.expressions():
            (present if each.referents else absent).append(each)
        wanted = max(round(self._absent * self._per_image), self._per_image - len(present))
        nothing = np.zeros(frame.size, bool)
        said = {each.expression.lower() for each in absent}
        made = self._negatives.draw(number, wanted, rng)
        made = [text for text in made if text.lower() not in said]
        absent += [Referring(text, referents=0, mask=nothing) for text in made]
        gone = [absent[k] for k in rng.permutation(len(absent))[:wanted]]
        kept = [present[k] for k in rng.permutation(len(present))[: self._per_image - len(gone)]]
        chosen = [*kept, *gone]
        chosen = [chosen[k] for k in rng.permutation(len(chosen))]
        masks = np.stack([each.mask for each in chosen if each.mask is not None])
        return Segments(rgb, tuple(each.expression for each in chosen), masks)
