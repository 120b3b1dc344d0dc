"""Scores a running node against a bag's ground truth while the bag is played.

It subscribes to `segmentation` and keeps the answers on frames that have ground truth in the bag (`gsva
record-truth`), as the same records that `gsva eval bag` writes: `gsva eval compare` can compare the two.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from tqdm import tqdm

from gsva_ros.answer import Slot
from gsva_ros.arguments import Parser, patience
from gsva_ros.bags.bag import Bag, BagError
from gsva_ros.conversions import mask_of
from gsva_ros.errors import InputError, one_line, visible
from gsva_ros.eval.metrics import NAMES, Scoring
from gsva_ros.eval.record import ID_PREFIX
from gsva_ros.eval.run import CaseRecord, SlotRecord, slot_record
from gsva_ros.eval.summary import Slots, latency, scores
from gsva_ros.files import check_writable, write_result
from gsva_ros.masks import trimmed
from gsva_ros.msg import Provenance, Segmentation
from gsva_ros.programs.signals import end_alike
from gsva_ros.ros import answers, qos
from gsva_ros.ros.start import init, own_arguments
from gsva_ros.serving.requests import DECIDED
from gsva_ros.stamps import SECOND, nanoseconds
from gsva_ros.truth import FrameTruth, Referring, read_truth

#: Rejection kinds by their numbers in Rejection messages.
KINDS = {number: kind for kind, number in answers.KINDS.items()}
STAGES = ("encode", "decide", "mask")
#: Fields of Provenance that are written with the scores.
PROVENANCE = ("model", "weights_hash", "device", "rejection_threshold")


class LiveEvaluation(Node):
    """Collects a record for every answer on a frame with ground truth."""

    def __init__(self, truth: Sequence[FrameTruth], **kwargs: Any) -> None:
        super().__init__("gsva_evaluate", **kwargs)
        self.records: dict[str, CaseRecord] = {}
        self.provenance: dict[str, Any] = {}
        self.nodes = 0  # publishers of segmentation
        self.gone = False  # whether they were none any more, at least for a while
        self.heard = time.monotonic()
        # By reason, what was asked in vain: instruction and expression.
        self.failed: defaultdict[str, list[str]] = defaultdict(list)
        self.elsewhere: Counter[str] = Counter()  # by topic, answers on frames without ground truth
        self._truth = {(frame.topic, frame.stamp): frame for frame in truth if frame.annotations}
        self._unanswered = set(self._truth)
        self._asked = {each.caption for frame in truth for each in frame.annotations}
        # Instructions answered on a frame other than the one they asked for.
        self.later: set[str] = set()
        self._seconds: list[float] = []  # each answer's time in the node
        self.interrupted = False  # whether it was ended by a signal
        self.carried_ages: list[float] = []  # seconds since the model's answer, of carried answers
        self.create_subscription(Segmentation, "segmentation", self._on_answer, qos.RELIABLE)

    @property
    def frames(self) -> int:
        """Number of frames with ground truth."""
        return len(self._truth)

    @property
    def waiting(self) -> int:
        """Number of frames with ground truth that are not answered yet."""
        return len(self._unanswered)

    @property
    def failures(self) -> int:
        """Number of answers that decide nothing, or cannot be scored."""
        return sum(map(len, self.failed.values()))

    def _on_answer(self, msg: Segmentation) -> None:
        self.heard = time.monotonic()
        stamp = nanoseconds(msg.header.stamp)
        asked_for = msg.instruction_id.partition(" ")[0]
        if asked_for.startswith(ID_PREFIX) and asked_for != f"{ID_PREFIX}{stamp}":
            self.later.add(msg.instruction_id)
        frame = self._truth.get((msg.image_topic, stamp))
        own = any(each.expression in self._asked for each in msg.outcomes)  # not another client's
        for outcome in msg.outcomes:
            # What ended before it had a frame has no topic.
            if outcome.outcome not in DECIDED and (frame or not msg.image_topic):
                if own:
                    vain = f"{msg.instruction_id}: {outcome.expression}"
                    self.failed[outcome.reason].append(vain)
                return
        self._seconds.append(float(msg.timings.total))
        ages = [nanoseconds(o.age) / SECOND for o in msg.outcomes if o.carried]
        self.carried_ages += ages[:1]
        if frame is None:
            self.elsewhere[msg.image_topic] += 1
            return
        if (msg.height, msg.width) != frame.size:
            height, width = frame.size
            reason = f"the frame is {msg.width}x{msg.height}, its truth {width}x{height}"
            self.failed[reason].append(msg.instruction_id)
            return
        asked = {each.caption for each in frame.annotations}
        if any(outcome.expression in asked for outcome in msg.outcomes):
            self._unanswered.discard((msg.image_topic, stamp))
        self._keep_provenance(msg.provenance)
        image = f"{msg.image_topic} {stamp}"
        name = f"{image} {msg.instruction_id}"
        seconds = {stage: float(getattr(msg.timings, stage)) for stage in STAGES}
        slots, device = list(_slots(msg, frame)), msg.provenance.device
        self.records[name] = CaseRecord(name, seconds, slots, image, device)

    def _keep_provenance(self, msg: Provenance) -> None:
        """Keep what produced the answers, which must be the same for all of them.

        Raises:
            InputError: an earlier answer has another.
        """
        provenance = {name: getattr(msg, name) for name in PROVENANCE}
        if self.provenance and self.provenance != provenance:
            both = " and ".join(_described(each) for each in (self.provenance, provenance))
            raise InputError(
                f"segmentation: answers of two models or thresholds: {both}: stop one of the nodes, or "
                "leave the node's parameters as they are"
            )
        self.provenance = provenance

    def count_nodes(self) -> None:
        """Count who publishes answers, note if nobody does any more, and warn of several.

        Two equal nodes cannot be told apart by their answers.
        """
        nodes = self.count_publishers("segmentation")
        if nodes > max(1, self.nodes):
            self.get_logger().warning(
                f"segmentation has {nodes} publishers, scored as if they were one: stop all but one node"
            )
        if self.nodes and not nodes:
            self.gone = True
        self.nodes = nodes

    def explanation(self) -> list[str]:
        """The counts, and what to do if the node did not keep up."""
        asked, missing = self.frames, self.waiting
        lines = [
            f"{asked} frames with truth: {asked - missing} answered, {missing} not; "
            f"{len(self.later)} instructions were answered on a later frame than they asked for, "
            f"{self.failures} answers FAILED, EXPIRED or CANCELLED"
        ]
        if self.carried_ages:
            lines.append(
                f"{len(self.carried_ages)} of {len(self._seconds)} answers were carried from an earlier "
                f"frame: {np.mean(self.carried_ages):.2f} s since the model's answer on average, "
                f"{max(self.carried_ages):.2f} s at most"
            )
        if missing and self._seconds:
            lines.append(self._advice())
        return lines

    def _advice(self) -> str:
        """What to do about frames that were not answered."""
        if self.interrupted:
            return "interrupted: the scores are of the frames answered until then"
        if self.gone and not self.nodes:
            return "segmentation has no publisher any more: the node ended before the bag did"
        if self.gone:
            return "the node was gone for a while: evaluate again with one that stays"
        needed = float(np.median(self._seconds))
        period = _period(self._truth)
        if needed > period:
            return (
                f"an answer takes {needed:.2f} s, the frames come every {period:.2f} s, and the node was "
                f"behind: play the bag at --rate {max(0.01, 0.8 * min(0.6, period / needed)):.2f}"
            )
        if self.failures > self.waiting / 2:
            reason = max(self.failed, key=lambda reason: len(self.failed[reason]))
            return f"most of these failed: {reason}"
        if len(self.later) > self.waiting / 2:
            return (
                "the node is fast enough, but instructions reached it after their frames: play the bag "
                "with config/fastdds.xml, or with gsva_player"
            )
        return (
            "the node is fast enough: frames were lost in transit (publish them reliably, and set "
            "image_reliability:=reliable), or the bag ended before the node was up"
        )

    def silence(self) -> str:
        """Why there may be no answer on a frame with ground truth."""
        if self.failed:
            return "all that was asked about them failed"
        if not self.elsewhere:
            return "is the node up, and the bag playing?"
        ((what, count),) = self.elsewhere.most_common(1)
        cameras = ", ".join(sorted({topic for topic, _ in self._truth}))
        return f"{count} answers came, on {what}; its frames with truth are on {cameras}"


def _period(places: Iterable[tuple[str, int]]) -> float:
    """Seconds between two of these frames, (topic, stamp), of all cameras together; inf of single ones."""
    cameras: dict[str, list[int]] = {}
    for topic, stamp in places:
        cameras.setdefault(topic, []).append(stamp)
    gaps = [np.diff(sorted(stamps)) / SECOND for stamps in cameras.values() if len(stamps) > 1]
    rate = sum(1 / float(np.median(each)) for each in gaps)
    return 1 / rate if rate else np.inf


def _described(provenance: dict[str, Any]) -> str:
    """A provenance in a few words."""
    threshold = f"rejection_threshold {provenance['rejection_threshold']:g}"
    return f"{provenance['model']} ({provenance['weights_hash'][:8]}, {provenance['device']}, {threshold})"


def _slots(msg: Segmentation, frame: FrameTruth) -> Iterator[SlotRecord]:
    """Records of an answer's slots; rejected ones have an empty mask, because the node sends none.

    If the node splits instances, a slot's mask is the union of its parts.
    """
    known = {each.expression: each for each in frame.expressions()}
    parts: dict[int, list[Any]] = {}
    for instance in msg.instances:
        parts.setdefault(instance.slot, []).append(instance)
    rejections = {rejection.slot: rejection for rejection in msg.rejections}
    size = msg.height, msg.width
    for outcome in msg.outcomes:
        query = known.get(outcome.expression, Referring(outcome.expression))
        if outcome.slot in parts:
            first, *others = parts[outcome.slot]
            mask = mask_of(first, msg.width, msg.height)
            for other in others:
                mask |= mask_of(other, msg.width, msg.height)
            slot = Slot(
                outcome.expression, first.p_seg, None, size, trimmed(mask), first.predicted_iou
            )
        else:
            rejection = rejections[outcome.slot]
            p_seg = 1.0 - rejection.probability
            slot = Slot(outcome.expression, p_seg, KINDS[rejection.kind], size)
        yield slot_record(query, slot)


def numbers_of(evaluation: LiveEvaluation, data: str) -> dict[str, Any]:
    """Scores and records, as `gsva eval bag --out` writes them, and the counts of what has no record.

    Rejection curve and baselines are omitted: they need masks of rejected slots or a second run.
    """
    records = list(evaluation.records.values())
    how = Scoring()
    slots = Slots.of(records)
    return evaluation.provenance | {
        "data": data,
        **asdict(how),
        "cases": len(records),
        "frames": evaluation.frames,
        "unanswered": evaluation.waiting,
        "failed": evaluation.failures,
        "scores": scores(slots, ~slots.kept, how),
        "latency_ms": latency(records),
        "carried": {"answers": len(evaluation.carried_ages), "ages": evaluation.carried_ages},
        "records": [asdict(record) for record in records],
    }


def run(args: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    """Listen until every frame is answered or no answer arrives for a while; print and write."""
    check_writable(args.out, inputs=(args.bag, args.truth))
    with Bag(args.bag) as bag:
        truth = read_truth(args.truth) if args.truth else bag.truth()
    if not truth:
        raise BagError(
            f"{args.bag} contains no ground truth: add it with `gsva record-truth`, or give --truth"
        )
    init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
    end_alike()
    evaluation = LiveEvaluation(truth)
    try:
        _listen(evaluation, args)
    except KeyboardInterrupt:
        evaluation.interrupted = True
    finally:
        rclpy.try_shutdown()
    for reason, asked in evaluation.failed.items():
        others = f" and {len(asked) - 1} more" if asked[1:] else ""
        told = f"gsva_evaluate: not answered: {asked[0]}{others}: {reason}"
        print(visible(told), file=sys.stderr)
    scored = _report(evaluation, args) if evaluation.records else 0
    if evaluation.interrupted:
        return 130
    if not evaluation.records:
        raise BagError(f"no answer on a frame of {args.bag}: {evaluation.silence()}")
    if not scored:
        raise BagError("no answer is to an expression of the ground truth: nothing could be scored")
    return 0


def _report(evaluation: LiveEvaluation, args: argparse.Namespace) -> int:
    """Print and write what was measured; returns the number of scored expressions."""
    numbers = numbers_of(evaluation, f"{args.bag}, live")
    for line in evaluation.explanation():
        print(visible(line))
    overall = numbers["scores"]["all"]
    for metric in NAMES:
        print(f"{metric:6} {'-' if overall[metric] is None else format(overall[metric], '.3f')}")
    print(f"written: {write_result(args.out, json.dumps(numbers, allow_nan=False) + chr(10))}")
    return int(overall["n"])


def _listen(evaluation: LiveEvaluation, args: argparse.Namespace) -> None:
    """Receive answers until every frame has one, or none arrives for a while."""
    executor = SingleThreadedExecutor()
    executor.add_node(evaluation)
    total = evaluation.waiting
    with tqdm(total=total, unit="frame", desc="answered", ascii=True) as bar:
        while evaluation.waiting:
            executor.spin_once(timeout_sec=0.1)
            evaluation.count_nodes()
            if new := total - evaluation.waiting - bar.n:
                bar.update(new)
            limit = args.idle if evaluation.records else args.wait
            if time.monotonic() - evaluation.heard > limit:
                option = "--idle" if evaluation.records else "--wait"
                tqdm.write(f"no answer for {limit:g} s; {option} waits longer", sys.stderr)
                break


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run gsva_ros gsva_evaluate`."""
    argv = list(sys.argv if argv is None else argv)
    parser = Parser(prog="gsva_evaluate", description=__doc__)
    parser.add_argument("bag", type=Path, help="bag that is being played, with its ground truth")
    parser.add_argument(
        "--truth", type=Path, help="COCO-style JSON instead of the ground truth in the bag"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("live.json"), help="JSON file for numbers and records"
    )
    parser.add_argument(
        "--wait", type=patience, default=120.0, help="seconds to wait for the first answer"
    )
    parser.add_argument(
        "--idle", type=patience, default=10.0, help="end after this many seconds without an answer"
    )
    try:
        return run(own_arguments(parser, argv), argv)
    except KeyboardInterrupt:
        return 130
    except (InputError, OSError) as error:
        print(f"gsva_evaluate: {one_line(error)}", file=sys.stderr)
        return 2
