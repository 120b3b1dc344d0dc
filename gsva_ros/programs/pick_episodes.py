"""Episodes of the pick planner: tasks, judgement, and a table of results. No ROS, no arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsva_ros.scenes import Expression
from gsva_ros.sim.expressions import Expressions, SeenObject
from gsva_ros.sim.shapes import KINDS

#: All but plates, whose rim is too thin for the fingertips.
GRASPABLE = tuple(kind for kind in KINDS if kind != "plate")
RIGHT_MASK = 0.5  # minimum IoU with the object that was meant
STILL = 0.002  # metres or radians: servos at rest drift by less
RISEN = 0.05  # metres above where it stood: lifted
PUSHED = 0.02  # metres along the table
Z = 1.96  # of a 95 % interval
DRAWN = 20  # expressions drawn per scene, half of them true

PICKED, REFUSED = "picked", "refused"
FAULTS = {
    "rejected": ("model", "rejected or not sure enough, though it is there"),
    "accepted": ("model", "accepted, though nothing fits"),
    "wrong mask": ("model", f"a mask whose IoU with the thing is below {RIGHT_MASK}"),
    "missed": ("grasp", "the right mask, but the thing did not rise"),
    "wrong thing": ("grasp", "the right mask, but another thing rose"),
    "moved": ("grasp", "refused, but a joint moved"),
    "unanswered": ("node", "no answer"),
}


@dataclass(frozen=True)
class Task:
    """An expression to ask for in a seed's scene. target: the object's number there; 0: none matches."""

    seed: int
    expression: str
    category: str
    target: int


@dataclass(frozen=True)
class Trace:
    """The result of an episode, as reported by the planner and by the simulation's ground truth.

    verdict, reason: the planner's (`pick_planner.Ending`). looks: how often it asked. found, iou: the
    object that covers most of the first answer's mask (0: none) and their IoU. risen, pushed: numbers of
    the objects that were lifted, and of those that were pushed, neither lifted nor meant. strayed: the
    largest distance of a joint from its parked position, metres or radians.
    """

    verdict: str
    reason: str
    looks: int
    found: int
    iou: float
    risen: tuple[int, ...]
    pushed: tuple[int, ...]
    strayed: float


def task_of(seed: int, seen: Sequence[SeenObject], width: int, present: bool) -> Task | None:
    """The first pair of the scene's expressions that asks for a single graspable object: the true one of
    the pair or, in the same form of words, the one that nothing matches. None: the scene has no such pair.
    """
    kinds = {thing.id: thing.kind for thing in seen}
    drawn = Expressions(seen, width, np.random.default_rng([seed, 1_000_003])).sample(DRAWN)
    for true, false in zip(drawn[::2], drawn[1::2], strict=True):
        # Not "all red mugs", "every mug", nor "the two mugs".
        one = true.category != "multiple" and all(e.text.startswith("the ") for e in (true, false))
        if one and len(true.targets) == 1 and kinds[true.targets[0]] in GRASPABLE:
            return _task(seed, true if present else false)
    return None


def _task(seed: int, asked: Expression) -> Task:
    return Task(seed, asked.text, asked.category, asked.targets[0] if asked.targets else 0)


def shown(mask: NDArray[np.bool_], instances: NDArray[np.uint8]) -> tuple[int, float]:
    """The object with the most pixels under the mask [H, W], and their IoU; (0, 0.0) if there is none."""
    pixels = np.bincount(instances[mask], minlength=1)
    pixels[0] = 0
    if not pixels.any():
        return 0, 0.0
    thing = int(pixels.argmax())
    return thing, float(pixels[thing] / (mask | (instances == thing)).sum())


def risen(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[int, ...]:
    """Numbers of the objects (positions [N, 3], metres) that have been lifted."""
    return tuple(int(n) + 1 for n in np.flatnonzero(after[:, 2] - before[:, 2] > RISEN))


def pushed(
    before: NDArray[np.float64], after: NDArray[np.float64], besides: Sequence[int]
) -> tuple[int, ...]:
    """Numbers of the objects (positions [N, 3], metres) that moved along the table, except `besides`."""
    far = np.linalg.norm((after - before)[:, :2], axis=1) > PUSHED
    return tuple(int(n) + 1 for n in np.flatnonzero(far) if n + 1 not in besides)


def judge(task: Task, trace: Trace) -> str:
    """PICKED or REFUSED if everything is right, otherwise a key of FAULTS."""
    if trace.verdict == "UNANSWERED":
        return "unanswered"
    refused = trace.verdict in ("REJECTED", "UNSURE") and trace.looks == 1
    if refused and trace.strayed > STILL:
        return "moved"
    if not task.target:
        return REFUSED if refused else "accepted"
    if trace.risen == (task.target,):
        return PICKED
    if refused:
        return "rejected"
    if trace.found != task.target or trace.iou < RIGHT_MASK:
        return "wrong mask"
    return "wrong thing" if trace.risen else "missed"


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; (0.0, 1.0) without episodes."""
    if not of:
        return 0.0, 1.0
    share, square = hits / of, Z * Z / of
    middle = share + square / 2
    half = Z * math.sqrt(share * (1 - share) / of + square / (4 * of))
    low, high = ((middle + sign * half) / (1 + square) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Episode:
    """A task, its result, and the judgement."""

    task: Task
    trace: Trace
    judgement: str

    def line(self) -> str:
        """A line for the terminal."""
        task, trace = self.task, self.trace
        asked = f"thing {task.target}" if task.target else "nothing"
        rose = ", ".join(map(str, trace.risen)) or "none"
        return (
            f"{task.seed} {task.expression!r} ({asked}): {self.judgement}; "
            f"found {trace.found} with IoU {trace.iou:.2f}, rose {rose}; "
            f"{trace.verdict}, {trace.reason}"
        )

    def record(self) -> dict[str, Any]:
        """A dictionary for a JSON file."""
        return {**asdict(self.task), **asdict(self.trace), "judgement": self.judgement}


def table(episodes: Sequence[Episode]) -> str:
    """The counts with 95 % intervals, and the failures by cause, as Markdown."""
    there = [e for e in episodes if e.task.target]
    absent = [e for e in episodes if not e.task.target]
    rows: list[tuple[str, Sequence[Episode], Callable[[Episode], bool]]] = [
        ("there: picked", there, _picked),
        *(
            (f"- {name}: picked", [e for e in there if e.task.category == name], _picked)
            for name in sorted({e.task.category for e in there})
        ),
        ("- the right mask: picked", [e for e in there if _right_mask(e)], _picked),
        ("not there: refused, no joint moved", absent, lambda e: e.judgement == REFUSED),
        ("not there: moved", absent, lambda e: e.trace.strayed > STILL),
        ("a wrong thing rose", episodes, _wrong_rose),
        ("another thing was pushed", episodes, lambda e: bool(e.trace.pushed)),
    ]
    lines = ["| | episodes | | share | 95 % interval |", "|---|---|---|---|---|"]
    lines += [_row(name, of, test) for name, of, test in rows]
    lines += ["", "| failures | whose | |", "|---|---|---|"]
    for name, (whose, what) in FAULTS.items():
        lines.append(f"| {what} | {whose} | {sum(e.judgement == name for e in episodes)} |")
    return "\n".join(lines)


def _row(name: str, of: Sequence[Episode], test: Callable[[Episode], bool]) -> str:
    hits = sum(map(test, of))
    low, high = wilson(hits, len(of))
    share = f"{hits / len(of):.3f}" if of else "-"
    return f"| {name} | {len(of)} | {hits} | {share} | [{low:.3f}, {high:.3f}] |"


def _picked(episode: Episode) -> bool:
    return episode.judgement == PICKED


def _right_mask(episode: Episode) -> bool:
    return episode.trace.found == episode.task.target and episode.trace.iou >= RIGHT_MASK


def _wrong_rose(episode: Episode) -> bool:
    return any(thing != episode.task.target for thing in episode.trace.risen)
