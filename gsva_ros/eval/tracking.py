"""Evaluates masks at the camera's rate: a recorded video with a slow model, in simulated time.

The model takes a fixed time per answer and starts each on the newest frame, as in the node's schedule. Ages
depend only on that clock and masks on the frames, so a run gives the same numbers on any machine; the cost
of carrying on this machine is measured in addition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..answer import Segmenter
from ..bags.bag import Bag
from ..errors import InputError
from ..masks import Region, iou, trimmed
from ..stamps import SECOND
from ..tracking import Carried, Tracker
from ..truth import FrameTruth, Referring

Rgb = NDArray[np.uint8]
#: Masks by expression; None if the model rejects it.
Masks = Mapping[str, Region | None]
Model = Callable[[Rgb, Sequence[Referring]], Masks]


@dataclass(frozen=True)
class Pace:
    """Simulated seconds for one answer of the model, and for carrying its masks onto one frame."""

    answer: float
    carry: float


@dataclass
class _Score:
    """The results of one way of answering."""

    ious: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)  # frames, at every sample
    switches: int = 0
    lost: int = 0  # masks of the model that could not be carried
    shown: int = 0  # masks

    def numbers(self, own: float) -> dict[str, float]:
        mean = float(np.mean(self.ious))
        return {
            "iou": mean,
            "of_own": mean / own if own else 0.0,
            "age_mean": float(np.mean(self.ages)),
            "age_max": float(np.max(self.ages)),
            "id_switches": self.switches / max(1, self.shown),
            "lost": self.lost / max(1, self.shown + self.lost),
        }


@dataclass(frozen=True)
class _Look:
    """A frame's truth, the model's own masks on it, its newest answer's masks, and those carried to it.

    seconds: the time that carrying took.
    """

    queries: Sequence[Referring]
    own: Masks
    held: Masks
    carried: Mapping[Hashable, Sequence[Carried]]
    seconds: float


@dataclass
class _Scores:
    """The accumulated results: the model on every frame, and both ways of answering."""

    own: list[float] = field(default_factory=list)
    ways: dict[str, _Score] = field(default_factory=lambda: {"off": _Score(), "flow": _Score()})
    costs: list[float] = field(default_factory=list)  # seconds

    def add(self, look: _Look, ids: dict[str, int]) -> None:
        """Count a frame; `ids`: the last instance ids of its instruction, by expression."""
        self.costs.append(look.seconds)
        off, flow = self.ways["off"], self.ways["flow"]
        for query in look.queries:
            there, word = _region(query.mask), query.expression
            self.own.append(_score(look.own[word], there))
            held = look.held[word]
            off.ious.append(_score(held, there))
            off.shown += held is not None
            now = next(iter(look.carried[word]), None)
            flow.ious.append(_score(None if now is None else now.region, there))
            if now is not None:
                flow.lost += now.region is None
                flow.shown += now.region is not None
                flow.switches += ids.get(word, now.id) != now.id
                ids[word] = now.id

    def numbers(self) -> dict[str, Any]:
        """The numbers that `evaluate_tracking` returns."""
        mean = float(np.mean(self.own))
        return {
            "frames": len(self.costs),
            "masks": len(self.own),
            "own": {"iou": mean},
            **{name: score.numbers(mean) for name, score in self.ways.items()},
            "carry_ms_measured": {
                "median": float(np.median(self.costs) * 1e3),
                "p95": float(np.percentile(self.costs, 95) * 1e3),
            },
        }


def perfect(rgb: Rgb, asked: Sequence[Referring]) -> Masks:
    """A model that returns the ground truth; InputError: that of the frame is not known."""
    if any(each.mask is None for each in asked):
        raise InputError(
            "the truth cannot answer for the model on a frame without truth: label every frame from the "
            "first to the last, or evaluate a model"
        )
    return {each.expression: _region(each.mask) for each in asked}


def segmented(engine: Segmenter[Any]) -> Model:
    """An engine as the model, with every expression decided independently."""

    def answer(rgb: Rgb, asked: Sequence[Referring]) -> Masks:
        slots = engine.segment(engine.encode(rgb), [each.expression for each in asked]).slots
        return {slot.expression: None if slot.rejected else slot.region for slot in slots}

    return answer


def evaluate_tracking(
    bag: Bag, truth: Sequence[FrameTruth], model: Model, pace: Pace
) -> dict[str, Any]:
    """Scores of the model on every frame (`own`), of its answers as they arrive, and of carried ones.

    Consecutive frames with the same expressions are one instruction; those that cannot be read go to the
    bag's problems. Model and tracker see all of the camera's frames from the first of them to the last;
    those with truth count, from the model's first answer on. The IoU of an absent target is 1 if no
    mask is shown and 0 otherwise; age is that of the frame which the newest mask refers to, sampled every
    millisecond, in frames.

    Raises:
        InputError: no frame counts, or none has expressions; the model cannot answer on a frame.
    """
    found = {(f.topic, f.stamp): f for f in truth if bag.is_usable(f.topic, f.stamp, f.size)}
    truth = [found[place] for place in sorted(found)]
    scores = _Scores()
    bar = tqdm(total=len(truth), unit="frame", desc="tracking", ascii=True)
    asked = groupby(truth, key=lambda f: (f.topic, tuple(a.caption for a in f.annotations)))
    for _, group in asked:
        known = {frame.stamp: frame for frame in group}
        stamps = _stamps(bag, known)
        turns = _turns(stamps, pace.answer)
        ids: dict[str, int] = {}
        for look in _looks(bag, known, stamps, model, turns, bar):
            scores.add(look, ids)
        if turns and turns[0][1] <= stamps[-1]:
            for name, ages in _ages(stamps, turns, pace.carry).items():
                scores.ways[name].ages += ages
    bar.close()
    if not scores.own or not all(way.ages for way in scores.ways.values()):
        nothing = (
            f"no mask is due before the last of {len(truth)} frames with truth: give more of them"
        )
        raise InputError(f"{bag.path}: {'; '.join([nothing, *bag.problems[:3]])}")
    return scores.numbers()


def _stamps(bag: Bag, known: Mapping[int, FrameTruth]) -> list[int]:
    """The stamps of all readable frames between those with truth, of their camera, in order of time."""
    first, last = min(known), max(known)
    topic = known[first].topic
    between = (stamp for stamp in sorted(bag.frames(topic)) if first <= stamp <= last)
    return [s for s in between if s in known or bag.is_usable(topic, s, None)]


def _looks(
    bag: Bag,
    known: Mapping[int, FrameTruth],
    stamps: Sequence[int],
    model: Model,
    turns: Sequence[tuple[int, int]],
    bar: Any,
) -> Iterator[_Look]:
    """Simulate one instruction: the masks on each frame with truth, from the model's first answer on."""
    tracker, waiting = Tracker(), list(turns)
    any_frame = known[stamps[0]]
    unknown = [Referring(each.caption) for each in any_frame.annotations]
    taken = {turn for turn, _ in turns}
    newest: int | None = None  # the frame of the model's newest answer
    answers: dict[int, Masks] = {}
    pictures: dict[int, Rgb] = {}
    for number, stamp in enumerate(stamps):
        bar.update(stamp in known)
        rgb = bag.rgb(any_frame.topic, stamp)
        queries = known[stamp].expressions() if stamp in known else unknown
        if stamp in known or number in taken:
            answers[number] = model(rgb, queries)
        if number in taken:
            pictures[number] = rgb
        start = time.perf_counter()
        tracker.observe(stamp, rgb)
        while waiting and waiting[0][1] <= stamp:
            newest = waiting.pop(0)[0]
            regions = {word: [] if r is None else [r] for word, r in answers[newest].items()}
            tracker.answer("", stamps[newest], pictures[newest], regions)
        if newest is None:
            continue
        carried = tracker.carried("")  # on every frame, as in the node: the next starts from it
        spent = time.perf_counter() - start
        if stamp in known:
            yield _Look(queries, answers[number], answers[newest], carried, spent)


def _ages(
    stamps: Sequence[int], turns: Sequence[tuple[int, int]], carry: float
) -> dict[str, list[float]]:
    """Ages of the newest mask, in frames, sampled every millisecond from the first carried mask on."""
    period = float(np.median(np.diff(stamps)))
    ends = {
        "off": [(stamps[turn], done) for turn, done in turns],
        "flow": [(s, s + int(carry * SECOND)) for s in stamps if s >= turns[0][1]],
    }
    looks = np.arange(ends["flow"][0][1], stamps[-1], SECOND // 1000)
    ages = {}
    for name, shown in ends.items():
        about, since = np.array(shown).T
        place = np.searchsorted(since, looks, side="right") - 1
        seen = place >= 0
        ages[name] = ((looks[seen] - about[place[seen]]) / period).tolist()
    return ages


def _turns(stamps: Sequence[int], seconds: float) -> list[tuple[int, int]]:
    """Indices of the frames that the model answers on, and when each answer is ready, nanoseconds."""
    turns: list[tuple[int, int]] = []
    free = stamps[0]
    while True:
        newest = int(np.searchsorted(stamps, free, side="right")) - 1
        if turns and newest <= turns[-1][0]:
            newest = turns[-1][0] + 1
            if newest >= len(stamps):
                return turns
        begin = max(free, stamps[newest])
        free = begin + int(seconds * SECOND)
        turns.append((newest, free))
        if free > stamps[-1]:
            return turns


def _region(mask: NDArray[np.bool_] | None) -> Region | None:
    return None if mask is None else trimmed(mask)


def _score(shown: Region | None, there: Region | None) -> float:
    if shown is None or there is None:
        return float(shown is there)
    return iou(shown, there)
